"""Debian package: the wheel with its locked dependencies in an environment of its own, below /usr/lib.

It is built for the architecture and for the Python of the Debian that it is built on, since the PostgreSQL driver is
compiled for both. Templates and maintainer scripts are in deploy/debian.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from containerstacks_billing import __version__
from containerstacks_billing.systemd.unit import DEFAULT_USER, MARK, Unit, written

NAME = "containerstacks-billing"
ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "deploy" / "debian"
HOME = Path("usr/lib") / NAME
DOCUMENTS = Path("usr/share/doc") / NAME
PYTHON = Path("/usr/bin/python3")
PACKAGE_MARK = f"# Part of the package {NAME}; local changes belong into `systemctl edit`."
_SCRIPTS = ("postinst", "prerm", "postrm")
_COMPLETIONS = {
    "bash": f"usr/share/bash-completion/completions/{NAME}",
    "zsh": f"usr/share/zsh/vendor-completions/_{NAME}",
    "fish": f"usr/share/fish/vendor_completions.d/{NAME}.fish",
}


class Missing(Exception):
    """A program that the build needs is not on this machine."""


def build(wheel: Path, lock: Path, out: Path, epoch: int) -> Path:
    """Build the package; return its path. Raises Missing where dpkg-deb or Debian's Python is not here."""
    if shutil.which("dpkg-deb") is None or not PYTHON.exists():
        raise Missing("the Debian package is built on Debian: dpkg-deb or /usr/bin/python3 is missing")
    architecture = _output("dpkg", "--print-architecture")
    python = _output(
        str(PYTHON), "-c", "import sys; print(f'{sys.version_info.major}.{sys.version_info.minor}')"
    )
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-deb-") as scratch:
        tree = Path(scratch) / "tree"
        _environment(tree, wheel, lock, python)
        _share(tree, epoch)
        _configuration(tree)
        _control(tree, architecture, python)
        _settle(tree, epoch)
        package = out / f"{NAME}_{__version__}_{architecture}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        subprocess.run(command, env=environment, check=True, capture_output=True)
    return package


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _environment(tree: Path, wheel: Path, lock: Path, python: str) -> None:
    """Make the virtual environment as it will stand below /usr/lib, and install into it."""
    home = tree / HOME
    (home / "bin").mkdir(parents=True)
    packages = home / "lib" / f"python{python}" / "site-packages"
    packages.mkdir(parents=True)
    (home / "bin" / "python").symlink_to(f"/usr/bin/python{python}")
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    )
    _install(home / "bin" / "python", "--no-deps", "--require-hashes", "-r", str(lock))
    _install(home / "bin" / "python", "--no-deps", str(wheel))
    for script in (home / "bin").iterdir():
        if script.name == NAME:
            body = script.read_text().partition("\n")[2]
            script.write_text(f"#!/{HOME}/bin/python\n{body}")
        elif script.name != "python":
            script.unlink()
    for compiled in packages.rglob("__pycache__"):
        shutil.rmtree(compiled)
    # Files of dpkg now; what pip kept of their origin names the machine that they were built on.
    for record in (*packages.glob("*.dist-info/RECORD"), *packages.glob("*.dist-info/direct_url.json")):
        record.unlink()
    for installer in packages.glob("*.dist-info/INSTALLER"):
        installer.write_text("dpkg\n")


def _install(python: Path, *arguments: str) -> None:
    """Install with pip of this environment, or with uv where that made it."""
    uv = shutil.which("uv")
    tool = [uv, "pip", "install", "-q", "--python", str(python)] if uv else _pip(python)
    subprocess.run([*tool, *arguments], check=True)


def _pip(python: Path) -> list[str]:
    quiet = ["-qq", "--no-input", "--no-compile", "--no-warn-script-location"]
    return [sys.executable, "-m", "pip", "--python", str(python), "install", *quiet]


def _share(tree: Path, epoch: int) -> None:
    """Move documents and man page to their places; add completions, changelog, copyright and remarks for lintian."""
    inner = tree / HOME / "share"
    documents = tree / DOCUMENTS
    documents.parent.mkdir(parents=True)
    shutil.move(inner / "doc" / NAME, documents)
    manual = tree / "usr/share/man/man1" / f"{NAME}.1.gz"
    manual.parent.mkdir(parents=True)
    _compressed(manual, (inner / "man/man1" / f"{NAME}.1").read_bytes())
    shutil.rmtree(inner / "man")
    (inner / "doc" / NAME).symlink_to(f"../../../../share/doc/{NAME}")
    for shell, place in _COMPLETIONS.items():
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_completion(shell))
    for name in ("copyright", "README.Debian"):
        shutil.copy(TEMPLATES / name, documents / name)
    moment = format_datetime(datetime.fromtimestamp(epoch, UTC))
    maintainer = next(
        line.partition(": ")[2]
        for line in (TEMPLATES / "control").read_text().splitlines()
        if line.startswith("Maintainer: ")
    )
    changes = f"{NAME} ({__version__}) stable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {maintainer}  {moment}\n"
    _compressed(documents / "changelog.gz", changes.encode())
    overrides = tree / "usr/share/lintian/overrides" / NAME
    overrides.parent.mkdir(parents=True)
    shutil.copy(TEMPLATES / "lintian-overrides", overrides)
    command = tree / "usr/bin" / NAME
    command.parent.mkdir(parents=True)
    command.symlink_to(f"../lib/{NAME}/bin/{NAME}")


def _completion(shell: str) -> str:
    """Return the script of a shell; what click would find out by starting the command is known here."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from containerstacks_billing.cli import app  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is None:
        raise ValueError(f"click knows no shell {shell}")
    return str(found(app, {}, NAME, "_CONTAINERSTACKS_BILLING_COMPLETE").source()) + "\n"


def _compressed(path: Path, content: bytes) -> None:
    """Write a file as `gzip -9n` does, without name and time."""
    path.write_bytes(gzip.compress(content, 9, mtime=0))


def units() -> dict[str, str]:
    """Return the units as the package installs them, by name."""
    found = {}
    for serves in (False, True):
        unit = Unit(
            executable=Path("/") / HOME / "bin" / NAME,
            directory=Path("/etc") / NAME,
            env_file=Path("/etc") / NAME / "env",
            user=DEFAULT_USER,
            serves=serves,
        )
        found[unit.name] = written(unit).replace(MARK, PACKAGE_MARK)
    return found


def _configuration(tree: Path) -> None:
    """Write the units and the configuration, which dpkg keeps when the operator has changed it."""
    place = tree / "lib/systemd/system"
    place.mkdir(parents=True)
    for name, text in units().items():
        (place / name).write_text(text)
    directory = tree / "etc" / NAME
    directory.mkdir(parents=True)
    shutil.copy(TEMPLATES / "env", directory / "env")


def _control(tree: Path, architecture: str, python: str) -> None:
    """Write the control files."""
    control = tree / "DEBIAN"
    control.mkdir()
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    kibibytes = sum(-(-path.stat().st_size // 1024) for path in files)
    text = (TEMPLATES / "control").read_text()
    for key, value in {
        "VERSION": __version__, "ARCHITECTURE": architecture, "PYTHON": python, "KIBIBYTES": str(kibibytes),
    }.items():  # fmt: skip
        text = text.replace(f"@{key}@", value)
    (control / "control").write_text(text)
    (control / "conffiles").write_text(f"/etc/{NAME}/env\n")
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}"
        for path in files
        if path.relative_to(tree).parts[0] != "etc"
    ]
    (control / "md5sums").write_text("\n".join(sums) + "\n")
    for name in _SCRIPTS:
        shutil.copy(TEMPLATES / name, control / name)


def _settle(tree: Path, epoch: int) -> None:
    """Give every file the mode that its place asks for and the time of the commit."""
    executable = {tree / HOME / "bin" / NAME, *(tree / "DEBIAN" / name for name in _SCRIPTS)}
    for path in sorted(tree.rglob("*"), reverse=True):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in executable else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    (tree / "etc" / NAME / "env").chmod(0o600)
    tree.chmod(0o755)
    os.utime(tree, (epoch, epoch))
