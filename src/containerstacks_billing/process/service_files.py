"""What the unit files of a service say, drop-ins included."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from containerstacks_billing.process.service_control import UNIT_DIRECTORY

_SYSTEM_UNITS = Path("/lib/systemd/system")


@dataclass
class Written:
    """What a unit file says, drop-ins included; a later line replaces an earlier one, as systemd has it.

    `drop_ins` names the drop-in that a value comes from, by key; values of the unit file itself are not in it.
    """

    values: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)
    drop_ins: dict[str, Path] = field(default_factory=dict)

    @property
    def executable(self) -> Path | None:
        """The program of ExecStart=, without the prefixes that change how it is run."""
        words = self.values.get("ExecStart", "").lstrip("@-:+!").split()
        return Path(words[0].strip('"')) if words and words[0].strip('"').startswith("/") else None


def read_unit(files: list[Path]) -> Written:
    """Read the [Service] section of a unit file and of its drop-ins."""
    found = Written()
    for file in files:
        section = ""
        for line in re.sub(r"\\\n\s*", " ", file.read_text(errors="replace")).splitlines():
            text = line.strip()
            if text.startswith("["):
                section = text
            elif section == "[Service]" and "=" in text and text[0] not in "#;":
                key, _, value = text.partition("=")
                _take(found, key.strip(), value.strip())
                if file != files[0]:
                    found.drop_ins[key.strip()] = file
    return found


def _take(found: Written, key: str, value: str) -> None:
    if key == "Environment":
        name, _, setting = value.strip('"').partition("=")
        found.environment[name] = setting
    elif key == "LoadCredential":
        name, _, path = value.partition(":")
        found.credentials[name] = path
    elif value or key not in found.values:
        found.values[key] = value


def unit_files(name: str, directories: tuple[Path, ...] = (UNIT_DIRECTORY, _SYSTEM_UNITS)) -> list[Path]:
    """List the unit file and its drop-ins; empty where it is not installed."""
    for directory in directories:
        if (directory / name).is_file():
            drop_ins = [p for d in directories for p in sorted((d / f"{name}.d").glob("*.conf"))]
            return [directory / name, *drop_ins]
    return []
