"""Checks of the systemd unit: what is written in it, whether that can start, and how it last ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from containerstacks_billing.billing.errors import BillingError
from containerstacks_billing.billing.settings import KEYS
from containerstacks_billing.process import service_control as control
from containerstacks_billing.process.envfile import read_env_file
from containerstacks_billing.process.findings import Finding, fail, failure, ok, warn
from containerstacks_billing.process.service_paths import account, examine_env_file, examine_executable
from containerstacks_billing.process.service_unit import DAEMON_UNIT

_SYSTEM_UNITS = Path("/lib/systemd/system")
_LOG_HINT = f"journalctl -u {DAEMON_UNIT} -p err -n 100"
_MUCH_MEMORY_BYTES = 1024**3
_REMEDIES = {
    "78": "Correct what the other checks name; the log has it too: " + _LOG_HINT,
    "75": "See the check of the database.",
    "200": "WorkingDirectory= of the unit has to exist: containerstacks-billing service install",
    "203": "See the check of the executable; then: systemctl daemon-reload && systemctl restart "
    + DAEMON_UNIT,
    "217": "containerstacks-billing service install --create-user",
    "243": "LoadCredential= of the unit names a file that is not there: containerstacks-billing service install",
}


@dataclass
class Written:
    """What a unit file says, drop-ins included; a later line replaces an earlier one, as systemd has it."""

    values: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)

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


def unit_files(
    name: str, directories: tuple[Path, ...] = (control.UNIT_DIRECTORY, _SYSTEM_UNITS)
) -> list[Path]:
    """List the unit file and its drop-ins; empty where it is not installed."""
    for directory in directories:
        if (directory / name).is_file():
            drop_ins = [p for d in directories for p in sorted((d / f"{name}.d").glob("*.conf"))]
            return [directory / name, *drop_ins]
    return []


def unit(files: list[Path] | None = None) -> Iterator[Finding]:
    """See whether the service is installed, can start, and runs."""
    files = unit_files(DAEMON_UNIT) if files is None else files
    if not files:
        yield ok("unit", "not installed as a systemd service; see `containerstacks-billing service install`")
        return
    try:
        written = read_unit(files)
    except OSError as error:
        yield warn("unit", f"{files[0]} cannot be read: {error.strerror}.", f"chmod 644 {files[0]}")
        return
    yield ok("unit", f"{files[0]}" + (f" and {len(files) - 1} drop-ins" if len(files) > 1 else ""))
    yield from _can_start(written)
    if control.is_booted():
        yield from how_it_is(control.state_of(DAEMON_UNIT))


def _can_start(written: Written) -> Iterator[Finding]:
    name = written.values.get("User") or "root"
    user = account(name)
    if user is None:
        yield fail("user", f"217/USER: the unit's user {name} does not exist.", _REMEDIES["217"])
        return
    hardened = written.values.get("ProtectHome", "no").lower() in {
        "yes",
        "true",
        "1",
        "on",
        "tmpfs",
        "read-only",
    }
    hidden = hardened and written.values["ProtectHome"].lower() != "read-only"
    if written.executable is None:
        yield fail("executable", "203/EXEC: the unit's ExecStart= names no program by its full path.",
                   "containerstacks-billing service install")  # fmt: skip
    else:
        yield from examine_executable(written.executable, user, hardened=hidden)
    directory = Path(written.values.get("WorkingDirectory", "/").lstrip("-") or "/")
    if not directory.is_dir():
        yield fail("working directory", f"200/CHDIR: {directory} does not exist.", _REMEDIES["200"])
    handed_over = written.credentials.get("env")
    named = written.environment.get("CONTAINERSTACKS_ENV_FILE")
    if handed_over:
        yield from examine_env_file(Path(handed_over.replace("%%", "%")), user, handed_over=True)
    elif named and "%" not in named.replace("%%", ""):
        yield from examine_env_file(Path(named.replace("%%", "%")), user)
    if given := written.values.get("EnvironmentFile"):
        yield from environment_file(given)


def environment_file(given: str) -> Iterator[Finding]:
    """Judge a file that systemd reads itself: it reads some lines in its own way, and a reload does not see changes."""
    optional, path = given.startswith("-"), Path(given.lstrip("-").strip('"'))
    try:
        file = read_env_file(path)
    except BillingError as error:
        yield failure("EnvironmentFile", error)
        return
    if file is None:
        if not optional:
            yield fail("EnvironmentFile", f"{path} does not exist, so systemd refuses to start.",
                       "Correct EnvironmentFile=, or: containerstacks-billing service install")  # fmt: skip
        return
    different = [entry for entry in file.entries.values() if entry.key in KEYS and entry.systemd_reading]
    for entry in different:
        yield warn(
            "EnvironmentFile",
            f"{path}, line {entry.line}: the service gets another {entry.key} than `containerstacks-billing` reads: "
            f"{entry.systemd_reading}.",
            "Write the line as KEY=value without remark, export or backslash, or let the program read the file:\n"
            f"Environment=CONTAINERSTACKS_ENV_FILE={path}",
        )
    if not different:
        yield warn("EnvironmentFile", f"{path} is read by systemd, so a reload does not see what changes in it.",
                   f"Use Environment=CONTAINERSTACKS_ENV_FILE={path} instead.")  # fmt: skip


def how_it_is(state: control.UnitState) -> Iterator[Finding]:
    """Say whether the service runs, and why not."""
    active, ended = state["ActiveState"], state.last_exit
    restarts = int(state["NRestarts"] or 0)
    if active in {"active", "reloading"}:
        yield ok("service", f"active, {state['StatusText'] or state['SubState']}")
    elif active == "inactive" and not ended:
        yield warn("service", "The service is stopped.", f"systemctl start {DAEMON_UNIT}")
    else:
        code = state["ExecMainStatus"] if state["ExecMainCode"] == "1" else ""
        yield fail(
            "service",
            f"The service is {active} ({state['SubState']}): {ended or 'no exit is known'}.",
            _REMEDIES.get(code, f"Look for the reason: {_LOG_HINT}"),
        )
    if restarts and active == "active":
        yield warn("restarts", f"systemd restarted the service {restarts} times; last: {ended or 'reason not known'}.",
                   f"Look for the reason: {_LOG_HINT}")  # fmt: skip
    if active == "active" and state["WatchdogUSec"] in {"0", "", "infinity"}:
        yield warn("watchdog", "The unit has no WatchdogSec=, so a daemon that hangs is not restarted.",
                   "containerstacks-billing service install")  # fmt: skip
    used = state["MemoryCurrent"]
    if used.isdigit() and int(used) > _MUCH_MEMORY_BYTES:
        yield warn(
            "memory of the service",
            f"{int(used) / 1024**2:,.0f} MiB, more than a fleet of any size needs.",
            f"Lower BILLING_WORKERS or BILLING_BATCH_SIZE, then: systemctl restart {DAEMON_UNIT}",
        )
