"""Checks of the machine and its configuration; they need no database."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from containerstacks_billing.config.load import Configuration
from containerstacks_billing.findings import Finding, fail, ok, warn
from containerstacks_billing.notifications.run_signal import send
from containerstacks_billing.settings import Settings

OLDEST_PYTHON = (3, 11)
_GIBIBYTE = 1024**3
_LITTLE_SPACE_BYTES = _GIBIBYTE
_NO_SPACE_BYTES = 100 * 1024**2
_LITTLE_MEMORY_BYTES = 100 * 1024**2


def interpreter(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """Check the version of the interpreter."""
    found = f"Python {'.'.join(map(str, version))} at {sys.executable}"
    if version >= OLDEST_PYTHON:
        yield ok("interpreter", found)
    else:
        yield fail("interpreter", f"{found} is too old.", "Install Python 3.11 or newer.")


def configuration(loaded: Configuration) -> Iterator[Finding]:
    """Report where the configuration comes from and what is odd about it."""
    given = sum(origin.source != "default" for origin in loaded.origins.values())
    yield ok(
        "configuration",
        f"{given} {'setting' if given == 1 else 'settings'} given, the others default; see `config show`",
    )
    for warning in loaded.warnings:
        yield warn("configuration", warning)


def env_file(loaded: Configuration) -> Iterator[Finding]:
    """Check the environment file; what systemd reads differently matters to a unit alone, and is checked there."""
    file = loaded.env_file
    if file is None:
        yield ok(".env", "none in this directory, and none was named")
        return
    if not file.warnings:
        yield ok(".env", f"{file.path}: {len(file.entries)} keys, readable by its owner alone")


def run_signal(settings: Settings) -> Finding:
    """Send a signal to HEARTBEAT_URL, as after a completed run; its receiver counts it as one."""
    if settings.heartbeat_url is None:
        return warn(
            "heartbeat URL",
            "HEARTBEAT_URL is not set, so nothing outside this machine notices when billing stops.",
            "Set it to the address that a monitoring service gives for a check that is due every hour.",
        )
    if problem := send(settings.heartbeat_url.get_secret_value()):
        return fail(
            "heartbeat URL",
            f"HEARTBEAT_URL did not accept a signal: {problem}.",
            "Compare the address with that of the check, and allow this machine to connect to it.",
        )
    return ok("heartbeat URL", "HEARTBEAT_URL accepted a signal")


def memory(table: Path = Path("/proc/meminfo")) -> Iterator[Finding]:
    """Check free memory and OOM kills."""
    try:
        figures = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
        free, whole = (int(figures[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
        counted = dict(line.split() for line in table.with_name("vmstat").read_text().splitlines())
    except (OSError, KeyError, ValueError):
        return  # not Linux
    message = f"{free / _GIBIBYTE:.1f} of {whole / _GIBIBYTE:.1f} GiB available"
    if free < _LITTLE_MEMORY_BYTES:
        yield warn("memory", message, "Something needs nearly all of it: ps aux --sort=-rss | head")
    elif int(counted.get("oom_kill", 0)):
        yield warn(
            "memory",
            f"{message}; since boot the kernel ended {counted['oom_kill']} processes for want of memory.",
            'Which ones: dmesg | grep -i "out of memory"',
        )
    else:
        yield ok("memory", message)


def room(directory: Path = Path("/var/log")) -> Iterator[Finding]:
    """Check that logs can still be written."""
    if not directory.is_dir():
        return
    free = shutil.disk_usage(directory).free
    message = f"{free / _GIBIBYTE:.1f} GiB free for logs in {directory}"
    if free < _NO_SPACE_BYTES:
        yield warn("disk for logs", message, "Make room: journalctl --vacuum-size=500M; and see df -h.")
    else:
        yield ok("disk for logs", message)


def disk(directory: Path) -> Iterator[Finding]:
    """Check the free space of the embedded database."""
    free = shutil.disk_usage(directory).free
    message = f"{free / _GIBIBYTE:.1f} GiB free for the embedded database in {directory}"
    hint = "Free some disk space; a full disk stops the database."
    if free < _NO_SPACE_BYTES:
        yield fail("disk", message, hint)
    elif free < _LITTLE_SPACE_BYTES:
        yield warn("disk", message, hint)
    else:
        yield ok("disk", message)
