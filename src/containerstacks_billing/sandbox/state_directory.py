"""State directory of the embedded PostgreSQL: private to one user, with one lock and the socket path."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from containerstacks_billing.errors import ConfigurationError, DatabaseUnavailable
from containerstacks_billing.sandbox.programs import Identity, namespaces_allowed

STATE_SETTING = "CONTAINERSTACKS_BILLING_STATE"
PORT = 5432  # names the socket; nothing listens on it
_SOCKET_NAME = f".s.PGSQL.{PORT}"
_LONGEST_SOCKET_PATH_BYTES = 103  # 107 on Linux, 103 on macOS
_SECONDS_TO_WAIT = 240


def default_directory() -> Path:
    """Return the state directory of this user: $CONTAINERSTACKS_BILLING_STATE, else the XDG location.

    Root without user namespaces runs the server as an account that cannot enter root's home; then it is in /var/lib.
    """
    chosen = os.environ.get(STATE_SETTING)
    if chosen:
        return Path(chosen).expanduser().absolute()
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    directory = home / "containerstacks-billing"
    if os.geteuid() == 0 and not (directory / "data").exists() and not namespaces_allowed():
        return Path("/var/lib/containerstacks-billing")
    return directory


class StateDirectory:
    """Directory with mode 0700."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make_private(self, who: Identity) -> None:
        """Create the state directory with mode 0700, or check it; existing parents are left unchanged."""
        try:
            for directory in (*reversed(self.path.parents), self.path):
                with contextlib.suppress(FileExistsError):
                    directory.mkdir(mode=0o700)
            if self.path.stat().st_uid == os.geteuid() != who.owner and not any(self.path.iterdir()):
                os.chown(self.path, who.owner, -1)
        except OSError as error:
            raise ConfigurationError(
                f"the state directory {self.path} cannot be made: {error.strerror}",
                f"name another directory in {STATE_SETTING}",
            ) from error
        if not _belongs_to(self.path, who):
            raise ConfigurationError(
                f"{self.path} is not private to user {who.owner}, and the embedded PostgreSQL keeps its data there",
                f"name another directory in {STATE_SETTING}, or correct its owner and mode (0700)",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this state directory; the kernel releases it when the process ends."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + _SECONDS_TO_WAIT
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise DatabaseUnavailable(
                            f"another process has been starting or stopping the server in {self.path} for minutes"
                        ) from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def socket(self) -> Path:
        """Return the socket directory: inside the state directory, or elsewhere when that path would be too long."""
        near = self.path / "socket"
        if not _fits(near):
            with contextlib.suppress(OSError):
                near = Path((self.path / "socket-directory").read_text().strip())
        return near / _SOCKET_NAME

    def make_socket_directory(self, who: Identity) -> None:
        """Create the private socket directory unless it exists."""
        directory = self.socket().parent
        if not _fits(directory) or (directory.parent != self.path and not _belongs_to(directory, who)):
            # The name is random, so that no other user can have made it first.
            directory = Path(tempfile.mkdtemp(prefix="containerstacks-", dir="/tmp"))
            self.write_private("socket-directory", f"{directory}\n", who)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        os.chown(directory, who.owner, -1)

    def write_private(self, name: str, text: str, who: Identity) -> None:
        """Write a file of this directory atomically with mode 0600."""
        path = self.path / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        os.chown(path, who.owner, -1)


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH_BYTES


def _belongs_to(directory: Path, who: Identity) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == who.owner and not stat.S_IMODE(found.st_mode) & 0o077
    )
