"""A machine of our own for a test: a real systemd, PostgreSQL and the program under /opt, all thrown away afterwards.

    with booted(scratch) as machine:
        machine.run("systemctl", "status", "containerstacks-billing.service")

What is needed of this machine, and why it may refuse, is in boot.sh. The program is the one under test: its libraries
and sources are mounted where an operator would have installed them, since a service user sees no home.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from tests.daemons import PATIENCE_SECONDS, ROOT, eventually

BINARIES = Path("/usr/lib/postgresql/15/bin")
HOME = Path("/opt/containerstacks")
UNIT = "containerstacks-billing.service"
DATABASE_URL = "postgresql:///containerstacks?host=/run/postgresql"
_REFUSED = 125
_HOMES = ("/root/", "/home/")

_FURNISH = f"""
set -e
python=$1 libraries=$2 sources=$3 root=$4
mkdir -p {HOME}/src
cp -r "$root/systemd" "$root/docs" {HOME}/
"$python" -m venv --without-pip {HOME}/.venv
mount --bind "$libraries" "$(echo {HOME}/.venv/lib/python3*/site-packages)"
mount --bind "$sources" {HOME}/src
cat >{HOME}/.venv/bin/containerstacks-billing <<'END'
#!{HOME}/.venv/bin/python
import sys
sys.path.insert(0, "{HOME}/src")
from containerstacks_billing.cli import main
main()
END
chmod 755 {HOME}/.venv/bin/containerstacks-billing
ln -s {HOME}/.venv/bin/containerstacks-billing /usr/local/bin/containerstacks-billing
"""
_BOOKS = f"""
set -e
mkdir -p /run/postgresql /var/lib/books
chown postgres: /run/postgresql /var/lib/books
runuser -u postgres -- {BINARIES}/initdb -D /var/lib/books -E UTF8 --locale=C --auth=trust >/dev/null
echo 'local all postgres trust
host containerstacks billing 127.0.0.1/32 scram-sha-256
host all postgres 127.0.0.1/32 trust
local all all peer' >/var/lib/books/pg_hba.conf
systemd-run --quiet --unit=books --service-type=notify -p User=postgres -p KillSignal=SIGINT -p TimeoutStartSec=60 \\
    {BINARIES}/postgres -D /var/lib/books -k /run/postgresql -c fsync=off
psql -q -U postgres -h /run/postgresql -c 'create database containerstacks'
"""
_MIGRATE = """
DATABASE_URL='postgresql://postgres@/containerstacks?host=/run/postgresql' containerstacks-billing migrate >/dev/null
"""


class Refused(Exception):
    """This machine boots no container, and the sentence says why."""


class Machine:
    """A booted machine; commands run inside it as root."""

    def __init__(self, init: str) -> None:
        self.init = init
        # The socket of the server inside, seen from here.
        self.conninfo = f"host=/proc/{init}/root/run/postgresql user=postgres dbname=containerstacks"

    def run(self, *command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command and return what it said; it may fail."""
        inside = [
            "nsenter",
            "--target",
            self.init,
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
        ]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "SYSTEMD_PAGER": "cat",
        }
        return subprocess.run(
            [*inside, *command],
            env=environment,
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd="/",
        )

    def do(self, *command: str, given: str | None = None) -> str:
        """Run a command that has to succeed; return its output."""
        done = self.run(*command, given=given)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, path: Path | str, text: str, mode: str = "644") -> None:
        """Write a file inside."""
        self.do("sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path} && chmod {mode} {path}", given=text)

    def unit(self, key: str, name: str = UNIT) -> str:
        """Return a property of the unit."""
        return self.do("systemctl", "show", name, f"--property={key}", "--value").strip()

    def log(self, *options: str) -> str:
        """Return the messages that the program wrote, without systemd's own."""
        self.do("journalctl", "--sync")
        return self.do(
            "journalctl", "-u", UNIT, "-o", "cat", "--no-pager", "-t", "containerstacks-billing", *options
        )

    def says(self, *words: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a line of the log with all these words."""
        try:
            eventually(
                lambda: any(all(w in line for w in words) for line in self.log().splitlines()), seconds
            )
        except AssertionError as late:
            raise AssertionError(f"{late}: {words}\n{self.log()}") from late


def _python() -> str:
    """An interpreter of this version that lies in no home, where a service user would not find it."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin") / name, Path("/usr/local/bin") / name):
        if candidate.exists() and not str(candidate.resolve()).startswith(_HOMES):
            return str(candidate)
    raise Refused(f"there is no {name} outside of homes, which a service user could execute")


@contextmanager
def booted(scratch: Path, *, bare: bool = False) -> Iterator[Machine]:
    """Boot a machine and furnish it; raises Refused where that is impossible. A bare one has an empty database alone."""
    if not (BINARIES / "postgres").exists():
        raise Refused("PostgreSQL 15 is missing: apt-get install postgresql-15")
    python = _python()
    with subprocess.Popen(
        [ROOT / "tests" / "boot.sh", scratch, "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            init = scratch / "init"
            eventually(
                lambda: process.poll() is not None or (init.exists() and init.read_text().strip()), 960
            )
            if process.poll() is not None:
                assert process.stderr is not None
                assert process.returncode == _REFUSED, process.stderr.read()
                raise Refused(process.stderr.read().strip())
            machine = Machine(init.read_text().strip())
            machine.do("bash", "-c", _BOOKS)
            if bare:
                yield machine
                return
            libraries = str(Path(psycopg.__file__).parent.parent)
            machine.do(
                "bash", "-c", _FURNISH + _MIGRATE, "furnish", python, libraries, str(ROOT / "src"), str(ROOT)
            )
            yield machine
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(180)
