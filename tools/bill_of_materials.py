"""Software bill of materials (CycloneDX 1.5) of what packages and images contain, from the lock file."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from containerstacks_billing import __version__

NAME = "containerstacks-billing"
_REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)(?: ; ([^\\]+))?")


@dataclass(frozen=True)
class Locked:
    """A locked distribution; `condition` is where it is installed, empty for everywhere."""

    name: str
    version: str
    condition: str
    hashes: tuple[str, ...]


def locked(lock: Path) -> list[Locked]:
    """Return what a lock file pins, in its order, with the SHA-256 of every file that may be installed."""
    found: list[Locked] = []
    for block in re.split(r"\n(?=[a-z0-9])", lock.read_text()):
        if match := _REQUIREMENT.match(block):
            hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
            found.append(Locked(match[1], match[2], (match[3] or "").strip(), hashes))
    return found


def document(lock: Path, epoch: int) -> dict[str, Any]:
    """Return the bill: ours as the component described, and one component for each distribution."""
    ours = f"pkg:pypi/{NAME}@{__version__}"
    parts = locked(lock)
    components = [_component(part) for part in parts]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, ours + str(components))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": ours,
                "name": NAME,
                "version": __version__,
                "purl": ours,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": ours, "dependsOn": [one["bom-ref"] for one in components]}],
    }


def _component(part: Locked) -> dict[str, Any]:
    reference = f"pkg:pypi/{part.name}@{part.version}"
    properties = [{"name": "sha256-of-a-file", "value": value} for value in part.hashes]
    if part.condition:
        properties.insert(0, {"name": "installed-where", "value": part.condition})
    return {
        "type": "library",
        "bom-ref": reference,
        "name": part.name,
        "version": part.version,
        "purl": reference,
        "properties": properties,
    }


def write(out: Path, lock: Path, epoch: int) -> Path:
    """Write the bill; return its path."""
    path = out / f"{NAME}-{__version__}.cdx.json"
    path.write_text(json.dumps(document(lock, epoch), indent=1) + "\n")
    return path
