"""Checks of the systemd unit: what is written in it, whether that can start, and how it last ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from containerstacks_billing.config.dotenv import read_env_file
from containerstacks_billing.daemon.model import ERROR_PREFIX
from containerstacks_billing.errors import BillingError
from containerstacks_billing.findings import Finding, Level, fail, failure, ok, warn
from containerstacks_billing.settings import KEYS
from containerstacks_billing.systemd import systemctl as control
from containerstacks_billing.systemd.access import account, examine_env_file, examine_executable
from containerstacks_billing.systemd.installed import Written, read_unit, unit_files
from containerstacks_billing.systemd.unit import APP_UNIT, DAEMON_UNIT

_MUCH_MEMORY_BYTES = 1024**3


def unit(files: list[Path] | None = None) -> Iterator[Finding]:
    """Check that the services are installed, can start, and run; the application side only where it is installed."""
    yield from _examined(DAEMON_UNIT, unit_files(DAEMON_UNIT) if files is None else files)
    if files is None and (beside := unit_files(APP_UNIT)):
        for finding in _examined(APP_UNIT, beside):
            yield replace(finding, check=f"app {finding.check}")


def _examined(name: str, files: list[Path]) -> Iterator[Finding]:
    if not files:
        yield ok("unit", "not installed as a systemd service; see `containerstacks-billing service install`")
        return
    try:
        written = read_unit(files)
    except OSError as error:
        yield warn("unit", f"{files[0]} cannot be read: {error.strerror}.", f"chmod 644 {files[0]}")
        return
    beside = {1: "", 2: f" and {files[-1]}"}.get(len(files), f" and {len(files) - 1} drop-ins")
    yield ok("unit", f"{files[0]}{beside}")
    yield from _can_start(name, written)
    if control.is_booted():
        yield from how_it_is(control.state_of(name))


def _install(name: str) -> str:
    return "containerstacks-billing service install" + (" --app" if name == APP_UNIT else "")


def _remedy(name: str, code: str) -> str:
    """Return what to do after an exit; systemd's own codes begin at 200."""
    log = f"journalctl -u {name} -p err -n 100"
    taken = (
        "Stop what listens on HOST and PORT (ss -ltnp), or choose another PORT; it is tried again by itself."
    )
    remedies = {
        "78": f"Correct what the other checks name; the log has it too: {log}",
        "75": taken if name == APP_UNIT else "See the check of the database.",
        "200": f"WorkingDirectory= of the unit has to exist: {_install(name)}",
        "203": f"See the check of the executable; then: systemctl daemon-reload && systemctl restart {name}",
        "217": f"{_install(name)} --create-user",
        "243": f"LoadCredential= of the unit names a file that is not there: {_install(name)}",
    }
    # A process that a signal ended logged nothing itself: what systemd says of it has no priority of errors.
    return remedies.get(code, f"Look for the reason: {log if code else f'journalctl -u {name} -n 100'}")


def _where_it_is_written(written: Written, key: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Point to the drop-in that a fault comes from: to write the unit again would change nothing."""
    for finding in findings:
        if finding.level is Level.FAIL and (drop_in := written.drop_ins.get(key)):
            hint = f"{key}= comes from the drop-in {drop_in}: correct or remove it, then: systemctl daemon-reload"
            yield replace(finding, hint=hint)
        else:
            yield finding


def _can_start(unit_name: str, written: Written) -> Iterator[Finding]:
    name = written.values.get("User") or "root"
    user = account(name)
    if user is None:
        missing = fail("user", f"217/USER: the unit's user {name} does not exist.", _remedy(unit_name, "217"))
        yield from _where_it_is_written(written, "User", iter([missing]))
        return
    protected = written.values.get("ProtectHome", "no").lower()
    hidden = protected in {"yes", "true", "1", "on", "tmpfs"}
    if written.executable is None:
        found = [fail("executable", "203/EXEC: the unit's ExecStart= names no program by its full path.",
                      _install(unit_name))]  # fmt: skip
    else:
        found = examine_executable(written.executable, user, hardened=hidden)
    # A program that exists and may not be executed is corrected itself, wherever its path comes from.
    if written.executable is None or not written.executable.exists():
        yield from _where_it_is_written(written, "ExecStart", iter(found))
    else:
        yield from found
    directory = Path(written.values.get("WorkingDirectory", "/").lstrip("-") or "/")
    if not directory.is_dir():
        missing = fail(
            "working directory", f"200/CHDIR: {directory} does not exist.", _remedy(unit_name, "200")
        )
        yield from _where_it_is_written(written, "WorkingDirectory", iter([missing]))
    handed_over = written.credentials.get("env")
    named = written.environment.get("CONTAINERSTACKS_ENV_FILE")
    if handed_over:
        yield from examine_env_file(Path(handed_over.replace("%%", "%")), user, handed_over=True)
    elif named and "%" not in named.replace("%%", ""):
        yield from examine_env_file(Path(named.replace("%%", "%")), user)
    if given := written.values.get("EnvironmentFile"):
        yield from _where_it_is_written(written, "EnvironmentFile", environment_file(given))


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


def _state(active: str, detail: str) -> str:
    return active if detail in {"", active} else f"{active} ({detail})"


def apply_hint(files: list[Path]) -> str:
    """Return the command by which a changed configuration takes effect, as the installed unit hands it over."""
    try:
        copied = "env" in read_unit(files).credentials
    except OSError:
        copied = True
    return f"systemctl {'restart' if copied else 'reload'} {DAEMON_UNIT}"


def how_it_is(state: control.UnitState) -> Iterator[Finding]:
    """Report whether the service runs, and why not."""
    name, active = state.name, state["ActiveState"]
    restarts = int(state["NRestarts"] or 0)
    # A process that runs now has not ended; how the one before it did, only the journal knows.
    forgotten = restarts and not state.last_exit and active != "inactive"
    last = control.last_end_of(name) if forgotten else state
    ended = last.last_exit
    if active in {"active", "reloading"} and state["StatusText"].startswith(ERROR_PREFIX):
        unreachable = "the heartbeat cannot be written" in state["StatusText"]
        yield Finding(
            "service",
            Level.FAIL if unreachable else Level.WARN,
            f"active, but does not bill: {state['StatusText'].removeprefix(ERROR_PREFIX)}.",
            f"Correct what the other checks name. If they find nothing, the service still has former settings:\n"
            f"systemctl restart {name}",
        )
    elif active in {"active", "reloading"}:
        yield ok("service", f"active, {state['StatusText'] or state['SubState']}")
    elif active == "inactive" and not ended:
        yield warn("service", "The service is stopped.", f"systemctl start {name}")
    else:
        code = last["ExecMainStatus"] if last["ExecMainCode"] == "1" else ""
        yield fail(
            "service",
            f"The service is {_state(active, state['SubState'])}: {ended or 'no exit is known'}.",
            _remedy(name, code),
        )
    if restarts and active == "active":
        times = "once" if restarts == 1 else f"{restarts} times"
        yield warn("restarts", f"systemd restarted the service {times}; last: {ended or 'reason not known'}.",
                   f"Look for what came before: journalctl -u {name} -n 100")  # fmt: skip
    if active == "active" and name != APP_UNIT and state["WatchdogUSec"] in {"0", "", "infinity"}:
        yield warn("watchdog", "The unit has no WatchdogSec=, so a daemon that hangs is not restarted.",
                   _install(name))  # fmt: skip
    used = state["MemoryCurrent"]
    if used.isdigit() and int(used) > _MUCH_MEMORY_BYTES:
        yield warn(
            "memory of the service",
            f"{int(used) / 1024**2:,.0f} MiB, more than a fleet of any size needs.",
            f"Lower BILLING_WORKERS or BILLING_BATCH_SIZE, then: systemctl restart {name}",
        )
