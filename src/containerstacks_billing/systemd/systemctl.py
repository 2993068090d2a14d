"""Interface to systemctl and journalctl: state of a unit, its last exit, and changes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.systemd.unit import APP_UNIT

UNIT_DIRECTORY = Path("/etc/systemd/system")
_ANSWER_SECONDS = 15
# A start waits until the daemon is ready, a stop until the current billing cycle is completed; the daemon extends the
# stop timeout while batches are committed.
_START_STOP_SECONDS = 3600
_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "ExecMainStatus", "ExecMainCode", "MainPID",
    "NRestarts", "StatusText", "WatchdogUSec", "MemoryCurrent", "FragmentPath", "ActiveEnterTimestamp",
)  # fmt: skip
EXITS = {
    "78": "the configuration or the schema is wrong",
    "75": "the database was not reachable",
    "200": "200/CHDIR: the working directory cannot be entered",
    "203": "203/EXEC: the program cannot be executed",
    "217": "217/USER: the user does not exist",
    "226": "226/NAMESPACE: a path of the sandbox does not exist",
    "243": "243/CREDENTIALS: a credential file cannot be read",
}
_APP_EXITS = EXITS | {"75": "another process listens on its HOST and PORT"}
# What systemd writes into the journal when a main process has ended, and when a unit has failed (sd-messages.h).
_PROCESS_ENDED, _UNIT_FAILED = "98e322203f7a4ed290d09fe03c09fe15", "d9b373ed55a64feb8242e02dbe79a49c"


@dataclass(frozen=True)
class UnitState:
    """Properties of a unit as reported by `systemctl show`."""

    name: str
    properties: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        return self.properties.get(key, "")

    @property
    def loaded(self) -> bool:
        """Whether the unit is loaded."""
        return self["LoadState"] not in {"", "not-found"}

    @property
    def last_exit(self) -> str | None:
        """How the process last ended, in words; None when it never ended or ended successfully."""
        code, status = self["ExecMainCode"], self["ExecMainStatus"]
        if self["Result"] == "watchdog":
            return "the watchdog timed out, so systemd ended it"
        if self["Result"] == "oom-kill":
            return "the kernel ended it because memory was short"
        if code in {"2", "3"}:
            return f"ended by signal {status}"
        if code == "1" and status != "0":
            meaning = (_APP_EXITS if self.name == APP_UNIT else EXITS).get(status)
            return f"exit {status}" + (f" ({meaning})" if meaning else "")
        return None if self["Result"] in {"success", ""} else self["Result"]


def is_booted() -> bool:
    """Return whether systemd is the init of this machine."""
    return Path("/run/systemd/system").is_dir()


def state_of(name: str) -> UnitState:
    """Return the properties of a unit; empty when systemd does not answer."""
    shown = _output("systemctl", "show", name, f"--property={','.join(_PROPERTIES)}")
    pairs = (line.partition("=") for line in shown.splitlines())
    return UnitState(name, {key: value for key, _, value in pairs})


def last_end_of(name: str) -> UnitState:
    """Return how a process of the unit last failed, from the journal; systemctl forgets it after a restart."""
    failed, ended = _last_message(name, _UNIT_FAILED), _last_message(name, _PROCESS_ENDED)
    if not failed:
        return UnitState(name, {})
    code = {"exited": "1", "killed": "2", "dumped": "3"}.get(ended.get("EXIT_CODE", ""), "")
    properties = {"ExecMainCode": code, "ExecMainStatus": ended.get("EXIT_STATUS", "")}
    return UnitState(name, {**properties, "Result": failed.get("UNIT_RESULT", "")})


def _last_message(name: str, message: str) -> dict[str, str]:
    """Return the last journal message of a kind about a unit since boot."""
    match = [f"UNIT={name}", f"MESSAGE_ID={message}"]
    text = _output("journalctl", "--boot", "--quiet", "--lines=1", "--output=json", *match)
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def systemd_version() -> int:
    """Return the version of systemd; 0 without systemd."""
    words = _output("systemctl", "--version").split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def systemctl(*arguments: str) -> None:
    """Run systemctl; raises WorkFailed with its message."""
    try:
        done = _run("systemctl", *arguments, timeout=_START_STOP_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkFailed(
            f"systemctl {' '.join(arguments)} could not be run: {type(error).__name__}.",
            hint="This needs a machine that systemd runs. `service install --dry-run` shows the unit everywhere.",
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:500] or f"exit {done.returncode}"
        raise WorkFailed(
            f"systemctl {' '.join(arguments)} failed: {said}",
            hint="Run `containerstacks-billing doctor`, which names the reason.",
        )


def _output(*command: str) -> str:
    """Return what a command writes; nothing where it cannot be run or does not answer."""
    try:
        return _run(*command).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _run(*command: str, timeout: float = _ANSWER_SECONDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def write_unit(path: Path, text: str) -> None:
    """Write a unit file atomically, mode 0644."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text)
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise WorkFailed(
            f"{path} cannot be written: {(error.strerror or 'unknown reason').lower()}.",
            hint="Run this as root: sudo containerstacks-billing service install",
        ) from None


def create_user(name: str) -> None:
    """Create a system user without home, shell or password."""
    done = _run(
        "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
        "--shell", "/usr/sbin/nologin", "--comment", "ContainerStacks billing", "--", name,
    )  # fmt: skip
    if done.returncode:
        raise WorkFailed(f"The user {name} could not be created: {' '.join(done.stderr.split())[:300]}")
