"""Installed unit files: their settings with drop-ins, and the unit that runs this program."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from containerstacks_billing.systemd.systemctl import UNIT_DIRECTORY
from containerstacks_billing.systemd.unit import APP_UNIT, DAEMON_UNIT

DIRECTORIES = (UNIT_DIRECTORY, Path("/lib/systemd/system"))


@dataclass
class Written:
    """Settings of a unit file with its drop-ins; a later line replaces an earlier one, as in systemd.

    `drop_ins` names the drop-in that a value comes from, by key; values of the unit file itself are not in it.
    """

    values: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)
    drop_ins: dict[str, Path] = field(default_factory=dict)

    @property
    def executable(self) -> Path | None:
        """The program of ExecStart=, without prefixes such as `-` and `@`."""
        words = self.values.get("ExecStart", "").lstrip("@-:+!").split()
        return Path(words[0].strip('"')) if words and words[0].strip('"').startswith("/") else None

    @property
    def env_file(self) -> Path | None:
        """Environment file of the service, from LoadCredential=, Environment=, EnvironmentFile= or its directory."""
        named = self.environment.get("CONTAINERSTACKS_ENV_FILE", "")
        for text in (self.credentials.get("env", ""), named, self.values.get("EnvironmentFile", "")):
            path = text.lstrip("-").strip('"')
            if path.startswith("/") and "%" not in path.replace("%%", ""):
                return Path(path.replace("%%", "%"))
        directory = self.values.get("WorkingDirectory", "").lstrip("-").replace("%%", "%")
        return Path(directory) / ".env" if directory.startswith("/") else None


def read_unit(files: list[Path]) -> Written:
    """Return the [Service] settings of a unit file and its drop-ins."""
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


def unit_files(name: str) -> list[Path]:
    """Return the paths of the unit file and its drop-ins; empty when the unit is not installed."""
    for directory in DIRECTORIES:
        if (directory / name).is_file():
            drop_ins = [p for d in DIRECTORIES for p in sorted((d / f"{name}.d").glob("*.conf"))]
            return [directory / name, *drop_ins]
    return []


def packaged_unit(name: str) -> Path | None:
    """Return the unit file that the system's package of this very program brought along; None without one."""
    path = DIRECTORIES[-1] / name
    if not path.is_file():
        return None
    executable = read_unit([path]).executable
    ours = executable is not None and executable.resolve() == this_command().resolve()
    return path if ours else None


def this_command() -> Path:
    """Return the command beside this interpreter, links not followed, since its path names the environment.

    An installation without an environment of its own may keep it elsewhere, where the PATH finds it.
    """
    beside = Path(sys.executable).parent / "containerstacks-billing"
    found = None if beside.exists() else shutil.which("containerstacks-billing")
    return Path(found).absolute() if found else beside


def env_file_of_service() -> tuple[str, Path] | None:
    """Return unit and environment file of the service that runs this very program; None where there is none.

    A checkout beside an installation is another program: what is tried in it leaves the books of the service alone.
    """
    for name in (DAEMON_UNIT, APP_UNIT):
        try:
            written = read_unit(unit_files(name))
        except OSError:
            continue
        ours = written.executable and written.executable.resolve() == this_command().resolve()
        if ours and (path := written.env_file):
            return name, path
    return None
