"""Installation and removal of the systemd units: preflight checks, steps, report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.findings import Finding, Level, fail, ok, warn
from containerstacks_billing.systemd import systemctl as control
from containerstacks_billing.systemd.access import (
    account,
    as_new_user,
    examine_env_file,
    examine_executable,
    in_a_home,
    readable,
)
from containerstacks_billing.systemd.installed import DIRECTORIES, packaged_unit, read_unit, this_command
from containerstacks_billing.systemd.unit import APP_UNIT, DAEMON_UNIT, DEFAULT_USER, MARK, Unit, written


def unit_for(env_file: Path | None, user: str | None, *, hardened: bool, serves: bool) -> Unit:
    """Return the unit for this program, its .env and the version of systemd."""
    name = user or (DEFAULT_USER if hardened else "root")
    executable = this_command()
    unit = Unit(
        executable=executable,
        directory=_home_of(executable),
        env_file=env_file,
        user=name,
        hardened=hardened,
        serves=serves,
        systemd_version=control.systemd_version() or 252,
    )
    known = account(name)
    # systemd itself reads what it hands over, also out of a home that the service does not see.
    hidden = env_file is not None and (
        known is None or not readable(env_file, known) or (hardened and in_a_home(env_file))
    )
    return replace(unit, private_env_file=hidden)


def as_packaged(unit: Unit) -> Unit | None:
    """Return the unit of the system's package, where it does what was asked for; None otherwise."""
    path = packaged_unit(unit.name)
    if path is None or not unit.hardened:
        return None
    known = read_unit([path])
    user, env_file = known.values.get("User", "root"), known.env_file
    if unit.user != user or unit.env_file not in {None, env_file}:
        return None
    directory = Path(known.values.get("WorkingDirectory", "/"))
    return replace(unit, directory=directory, env_file=env_file, private_env_file=False)


def _home_of(executable: Path) -> Path:
    """Return the directory that contains the virtual environment of the command."""
    return executable.parents[2]


def examine(unit: Unit, *, knows_database: bool, create_user: bool = False) -> list[Finding]:
    """Return findings about everything that could keep the unit from starting.

    `knows_database` is whether DATABASE_URL stands in a file that the service reads.
    """
    findings: list[Finding] = []
    known = account(unit.user)
    if known is None and create_user:
        findings.append(ok("user", f"{unit.user} does not exist yet and would be created"))
        known = as_new_user(unit.user)
    if known is None:
        return [
            fail(
                "user",
                f"217/USER: the user {unit.user} does not exist.",
                f"Create it with: {_command_of(unit)} --create-user",
            )
        ]
    if known.uid == 0 and unit.hardened:
        findings.append(
            warn("user", "The service would run as root.", "A dedicated user is safer: leave --user away.")
        )
    findings += examine_executable(unit.executable, known, hardened=unit.hardened)
    if unit.env_file is not None:
        findings += examine_env_file(unit.env_file, known, handed_over=unit.private_env_file)
    if not knows_database:
        findings.append(
            fail(
                "database",
                "The unit would not know DATABASE_URL: it is in no file that the service reads.",
                "Write it into the .env and name that file: containerstacks-billing --env-file FILE service install",
            )
        )
    return findings


def _command_of(unit: Unit) -> str:
    """Return the command that installs such a unit."""
    return (
        "sudo containerstacks-billing service install"
        + (" --app" if unit.serves else "")
        + ("" if unit.hardened else " --dev")
    )


def refuse_what_fails(findings: list[Finding]) -> None:
    """Raise ConfigurationError where a finding would keep the unit from starting."""
    failed = [finding for finding in findings if finding.level is Level.FAIL]
    if failed:
        raise ConfigurationError(
            f"Nothing was installed: {failed[0].message}",
            hint=failed[0].hint or "Correct what is marked FAIL above.",
        )


def steps(unit: Unit, *, create_user: bool) -> Iterator[str]:
    """Yield the steps of an installation, as sentences."""
    if create_user and account(unit.user) is None:
        yield f"create the system user {unit.user}, without home, shell and password"
    if as_packaged(unit) is None:
        yield f"write {control.UNIT_DIRECTORY / unit.name}"
    yield "systemctl daemon-reload"
    yield f"systemctl enable {unit.name}"
    yield f"systemctl restart {unit.name}"


def require_root_and_systemd(unit: Unit) -> None:
    """Raise ConfigurationError where no service can be installed."""
    if os.geteuid() != 0:
        raise ConfigurationError(
            "Only root can install a service.",
            hint=f"{_command_of(unit)}; --dry-run works without.",
        )
    if not control.is_booted():
        raise ConfigurationError(
            "systemd does not run this machine, so no service can be installed.",
            hint="Start the daemon in the foreground: containerstacks-billing daemon",
        )


def create_missing_user(unit: Unit) -> None:
    """Create the user of the unit where there is none; only after everything else was found in order."""
    if account(unit.user) is None:
        control.create_user(unit.user)


def install(unit: Unit, *, replace: bool) -> Iterator[str]:
    """Write, reload, enable and start the unit; yield what was done. A foreign unit is replaced only with `replace`."""
    path, text = control.UNIT_DIRECTORY / unit.name, written(unit)
    if not path.exists() and as_packaged(unit):
        yield f"The unit of the package is used: {packaged_unit(unit.name)}."
        yield from _started(unit.name)
        return
    if path.exists() and MARK not in path.read_text(errors="replace"):
        if not replace:
            raise ConfigurationError(
                f"{path} exists and was not written by this command.",
                hint=f"Look at it with `systemctl cat {unit.name}`; --yes replaces it and keeps a copy beside it.",
            )
        copy = path.with_name(path.name + ".replaced")
        shutil.copy2(path, copy)
        yield f"The former unit is kept as {copy}."
    control.write_unit(path, text)
    yield f"Wrote {path}."
    yield from _started(unit.name)


def _started(name: str) -> Iterator[str]:
    control.systemctl("daemon-reload")
    control.systemctl("enable", name)
    yield f"Enabled {name}: it starts with the machine."
    control.systemctl("reset-failed", name)
    control.systemctl("restart", name)
    yield f"Started {name}."


def uninstall(name: str, *, dry_run: bool) -> Iterator[str]:
    """Stop, disable and remove the unit; yield what was done. A unit that is not installed is no error."""
    path, packaged = control.UNIT_DIRECTORY / name, packaged_unit(name)
    if not path.exists() and not packaged:
        yield f"{name} is not installed; there is nothing to remove."
        return
    if dry_run:
        removed = f", remove {path}, and reload systemd" if path.exists() else ""
        yield f"Would stop and disable {name}{removed}."
        return
    if os.geteuid() != 0:
        raise ConfigurationError(
            "Only root can remove a service.",
            hint="sudo containerstacks-billing service uninstall" + (" --app" if name == APP_UNIT else ""),
        )
    was = control.state_of(name)["ActiveState"]
    control.systemctl("disable", "--now", name)
    yield _how_it_stopped(control.state_of(name), was)
    left = _left(name, path)
    if path.exists():
        path.unlink()
        control.systemctl("daemon-reload")
        yield f"Removed {path}."
    if packaged:
        yield f"{packaged} belongs to the package: apt-get remove containerstacks-billing"
    elif left:
        yield f"Left: {'; '.join(left)}."


def _left(name: str, path: Path) -> list[str]:
    """Return what stays beside a removed unit, each with the command that removes it."""
    left = []
    user = read_unit([path]).values.get("User", "root") if path.exists() else "root"
    if user == DEFAULT_USER and account(user) and not (control.UNIT_DIRECTORY / _other(name)).exists():
        left.append(f"the user {user} (userdel {user})")
    left += [f"{d / name}.d (rm -r {d / name}.d)" for d in DIRECTORIES[:1] if (d / f"{name}.d").is_dir()]
    return left


def _other(name: str) -> str:
    return DAEMON_UNIT if name == APP_UNIT else APP_UNIT


def _how_it_stopped(state: control.UnitState, was: str) -> str:
    """Return how the unit stopped, from its properties in systemd."""
    if was not in {"active", "reloading", "activating", "deactivating"}:
        return f"{state.name} was not running."
    if state["Result"] != "success":
        return f"Stopped {state.name}: {state.last_exit or state['Result'] or 'systemd does not say how it ended'}."
    if state.name == APP_UNIT:
        return f"Stopped {state.name}."
    return f"Stopped {state.name}: it ended by itself, after the billing cycle that it was in."
