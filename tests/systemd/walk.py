"""A walk through an installation: what a person types on a machine, what is printed, kept as a transcript."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.daemons import ROOT
from tests.systemd_container import Machine

from containerstacks_billing import __version__

HOME = Path("/home/alice")
DOCUMENTS = (
    "docs/billing-daemon.md",
    "docs/upgrading.md",
    "docs/troubleshooting/common-issues.md",
    "deploy/debian/README.Debian",
)


class Walk:
    """An ordinary user with sudo, who types nothing but what documents and output print.

    `types` runs a line that was printed, `knows` one that the person brings along: the password of the database, an
    editor, a crash. Both go into the transcript, with their output.
    """

    def __init__(self, machine: Machine, transcript: Path) -> None:
        self.machine = machine
        self.transcript = transcript
        transcript.parent.mkdir(parents=True, exist_ok=True)
        transcript.write_text("")
        self._printed = "\n".join((ROOT / name).read_text() for name in DOCUMENTS)
        machine.do("useradd", "--create-home", "--shell", "/bin/bash", "alice")
        machine.write("/etc/sudoers.d/alice", "alice ALL=(ALL) NOPASSWD: ALL\n", "440")

    def brings(self, file: Path) -> None:
        """Put a file into the person's home, as a download would."""
        home = Path(f"/proc/{self.machine.init}/root{HOME}")
        shutil.copy(file, home / file.name)

    def types(self, line: str, *, code: int = 0) -> str:
        """Run a line that was printed before; return what it prints."""
        assert _plain(line) in _plain(self._printed), f"nothing printed this line: {line}"
        return self.knows(line, code=code)

    def knows(self, line: str, *, code: int = 0) -> str:
        """Run a line of the person's own; return what it prints."""
        done = self.machine.run("runuser", "--login", "alice", "--command", f"({line}) 2>&1")
        with self.transcript.open("a") as kept:
            kept.write(f"$ {line}\n{done.stdout}{done.stderr}")
            kept.write(f"[exit code {done.returncode}]\n\n" if done.returncode else "\n")
        assert code == done.returncode, self.transcript.read_text()[-4000:]
        self._printed += f"\n{done.stdout}"
        return done.stdout

    def writes(self, setting: str, file: str) -> None:
        """Set a line of a configuration file, as an editor would."""
        key = setting.partition("=")[0]
        script = f"sudo sed -i -e '/^#*{key}=/d' {file} && echo '{setting}' | sudo tee -a {file} >/dev/null"
        self.machine.do("runuser", "--login", "alice", "--command", script)
        shown = re.sub(r":[^:@/]+@", ":…@", setting)
        with self.transcript.open("a") as kept:
            kept.write(f"(writes {shown} into {file})\n\n")


def _plain(text: str) -> str:
    return " ".join(text.split())


def package_of(version: str, out: Path) -> Path:
    """Build wheel and Debian package of this checkout, as that version; return the path of the package.

    Another version than the checkout's gets a migration and a changed function too, as a next version would.
    """
    tree = ROOT
    if version != __version__:
        tree = out / "checkout"
        files = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in files.stdout.split("\0"):
            if name and not name.startswith("tests/"):
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tree / name)
        package = tree / "src/containerstacks_billing"
        (package / "version.py").write_text(f'"""Version of the package."""\n\n__version__ = "{version}"\n')
        (package / "schema/tables/900_next_version.sql").write_text(
            "-- A table that the next version needs.\n-- creates: billing_next_version\n"
            "create table billing_next_version (id integer primary key);\n"
        )
        with (package / "schema/code/functions.sql").open("a") as functions:
            functions.write("\n-- Changed in the next version.\n")
    return next(built(tree, out).glob(f"*_{version}_*.deb"))


def built(tree: Path, out: Path, *options: str) -> Path:
    """Run `./dev package` of a checkout; return the directory."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}/src:{tree}", "SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, "-m", "tools.package", "--out", str(out), *options]
    done = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out
