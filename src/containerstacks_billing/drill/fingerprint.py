"""Fingerprint of the installed package: one SHA-256 over its files, and changes since delivery."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from containerstacks_billing.version import __version__

PACKAGE = "containerstacks_billing"
DISTRIBUTION = "containerstacks-billing"


@dataclass(frozen=True, slots=True)
class Installed:
    """The files of the package; `changed` is None where no record says what was delivered (a checkout)."""

    version: str
    files: int
    sha256: str
    changed: tuple[str, ...] | None

    @property
    def as_delivered(self) -> bool | None:
        """Whether every file is as the wheel had it."""
        return None if self.changed is None else not self.changed


def installed() -> Installed:
    """Read all files; their order and so the sum depends on nothing but their names and contents."""
    root = Path(__file__).parent.parent
    digests = {
        str(PurePosixPath(PACKAGE, *path.relative_to(root).parts)): hashlib.sha256(path.read_bytes()).digest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in {".pyc", ".pyo"}
    }
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(f"{digests[name].hex()}  {name}\n".encode())
    return Installed(__version__, len(digests), total.hexdigest(), _changed(digests))


def _changed(digests: dict[str, bytes]) -> tuple[str, ...] | None:
    """Name the files that differ from the record of the installation, are missing, or are not in it."""
    recorded = _recorded()
    if not recorded:
        return None
    found = {name: base64.urlsafe_b64encode(digest).rstrip(b"=").decode() for name, digest in digests.items()}
    return tuple(
        sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))
    )


def _recorded() -> dict[str, str]:
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    return {
        str(file): file.hash.value
        for file in files
        if file.parts[0] == PACKAGE and file.hash is not None and file.hash.mode == "sha256"
    }
