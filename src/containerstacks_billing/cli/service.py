"""`service`: install, show and uninstall the systemd unit of the daemon or the application side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import all_flags, app, configured

if TYPE_CHECKING:
    from containerstacks_billing.findings import Finding
    from containerstacks_billing.settings import Settings

_EXAMPLES = """
\b
Examples:
  containerstacks-billing service install --dry-run
  containerstacks-billing service show
  sudo containerstacks-billing service uninstall
"""
_UNINSTALL_EXAMPLES = """
\b
Examples:
  containerstacks-billing service uninstall --dry-run
  sudo containerstacks-billing service uninstall
  sudo containerstacks-billing service uninstall --app    the application side
"""
_SHOW_EXAMPLES = """
\b
Examples:
  containerstacks-billing service show
  containerstacks-billing service show --app --json | jq .active
"""


@app.group("service", epilog=_EXAMPLES)
def verbs() -> None:
    """Install, show or uninstall the systemd service."""


_app_option = click.option(
    "--app", "serves", is_flag=True, help="The application side (serve), not the daemon."
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")

_INSTALL_EXAMPLES = """
\b
Examples:
  containerstacks-billing service install --dry-run
  sudo containerstacks-billing --env-file /opt/containerstacks/.env \\
    service install --create-user
  sudo containerstacks-billing service install --dev     from a checkout
  sudo containerstacks-billing service install --app     the application side
"""


@verbs.command(epilog=_INSTALL_EXAMPLES)
@click.option(
    "--user", metavar="NAME", help="Run as this user. [default: containerstacks-billing; --dev: root]"
)
@click.option("--create-user", is_flag=True, help="Create that user if need be.")
@click.option("--chmod", is_flag=True, help="Make .env readable by its owner alone, if need be.")
@click.option("--dev", is_flag=True, help="For a checkout in a home: less confined.")
@_app_option
@_dry_run_option
@click.option("--yes", is_flag=True, help="Replace a unit that is not ours; a copy is kept.")
@click.pass_context
def install(
    ctx: click.Context,
    user: str | None,
    create_user: bool,
    chmod: bool,
    dev: bool,
    serves: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Write the unit with the actual paths, enable and start it.

    Looks first whether the user can reach program and configuration, and whether
    others cannot change them. Needs root, except with --dry-run, which exits 78
    where an installation would be refused.
    """
    if not dry_run:
        _close_env_file(ctx, chmod=chmod)
    loaded = configured(ctx)
    from containerstacks_billing.cli import render
    from containerstacks_billing.systemd import install as installing
    from containerstacks_billing.systemd.unit import written

    env_file = loaded.env_file.path if loaded.env_file else None
    unit = installing.unit_for(env_file, user, hardened=not dev, serves=serves)
    unit = installing.as_packaged(unit) or unit
    knows = loaded.settings.database_url is not None and loaded.origins["DATABASE_URL"].source not in {
        "environment",
        "flag",
    }
    findings = installing.examine(unit, knows_database=knows, create_user=create_user)
    if dry_run:
        print(written(unit), end="")
        for line in installing.steps(unit, create_user=create_user):
            print(f"Would: {line}", file=sys.stderr)
        _show(findings)
        installing.refuse_what_fails(findings)
        return
    installing.require_root_and_systemd(unit)
    _show(findings)
    installing.refuse_what_fails(findings)
    if create_user:
        installing.create_missing_user(unit)
    # Whether the user can read .env, and with that how the unit hands it over, is known only now.
    made = installing.unit_for(env_file, user, hardened=not dev, serves=serves)
    unit = installing.as_packaged(made) or made
    for line in installing.install(unit, replace=yes):
        render.stderr().print(line, soft_wrap=True)
    _show_state(unit.name, as_json=False)


@verbs.command(epilog=_UNINSTALL_EXAMPLES)
@_app_option
@_dry_run_option
@click.pass_context
def uninstall(ctx: click.Context, serves: bool, dry_run: bool) -> None:
    """Stop and disable the service, and remove the unit.

    Its current cycle ends first. Tables and charges stay. Says what takes over when the last heartbeat is
    FAILOVER_AFTER_MINUTES old.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.systemd import install as installing
    from containerstacks_billing.systemd.systemctl import UNIT_DIRECTORY
    from containerstacks_billing.systemd.unit import APP_UNIT, DAEMON_UNIT

    name = APP_UNIT if serves else DAEMON_UNIT
    is_installed = (UNIT_DIRECTORY / name).exists()
    # Asked first: without the unit it is not known which file names the database.
    takeover = None if serves else _takeover(ctx)
    settings = _settings_while_installed(ctx) if is_installed and not serves else None
    for line in installing.uninstall(name, dry_run=dry_run):
        render.stderr().print(line, soft_wrap=True)
    if takeover:
        render.stdout().print(takeover, soft_wrap=True)
    if settings is not None:
        for line in release_fence(settings, dry_run=dry_run):
            render.stdout().print(line, soft_wrap=True)


@verbs.command(epilog=_SHOW_EXAMPLES)
@_app_option
@json_option
def show(serves: bool, as_json: bool) -> None:
    """Show the unit's state as systemd sees it."""
    from containerstacks_billing.systemd.unit import APP_UNIT, DAEMON_UNIT

    _show_state(APP_UNIT if serves else DAEMON_UNIT, as_json=as_json)


def _close_env_file(ctx: click.Context, *, chmod: bool) -> None:
    """Offer to take the rights of other users from the .env, without which no service starts.

    Without a terminal --chmod is the answer. What is declined or missing is refused by the configuration, with the
    command that mends it.
    """
    import os
    import stat

    from containerstacks_billing.cli.confirm import is_confirmed
    from containerstacks_billing.config.load import ENV_FILE_KEY

    path = Path(all_flags(ctx).get(ENV_FILE_KEY) or os.environ.get(ENV_FILE_KEY) or ".env").absolute()
    if not path.is_file() or not path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return
    mode = f"{stat.S_IMODE(path.stat().st_mode):04o}"
    question = f"{path} is open to all users (mode {mode}), so the service would refuse it. chmod 600 now?"
    if chmod or is_confirmed(question):
        path.chmod(0o600)
        print(f"chmod 600 {path}", file=sys.stderr)


def _settings_while_installed(ctx: click.Context) -> Settings | None:
    """Return the settings, of the unit's own file where none was named; a wrong one is no reason not to uninstall."""
    from containerstacks_billing.errors import BillingError

    try:
        return configured(ctx).settings
    except BillingError:
        return None


def _takeover(ctx: click.Context) -> str:
    """Return what takes over from the daemon and when; what cannot be read is no reason not to uninstall."""
    from containerstacks_billing.config.target import target
    from containerstacks_billing.errors import BillingError
    from containerstacks_billing.status.failover import failover_target
    from containerstacks_billing.status.model import limits_of
    from containerstacks_billing.status.read import read_failover

    try:
        settings = configured(ctx).settings
        reading = read_failover(target(settings).conninfo)
    except BillingError as error:
        return f"What takes over is not known, because the status could not be read: {error}"
    found = failover_target(reading, limits_of(settings).failover_after)
    if found.who == "nobody":
        return f"{found.explained}.\n{found.advice}"
    minutes = found.after.total_seconds() / 60
    return (
        f"{found.sentence} {minutes:.0f} minutes after the last heartbeat, without any gap in what is charged.\n"
        "To let it take over at once, empty the status table:\n"
        '  psql "$DATABASE_URL" -c "TRUNCATE TABLE billing_daemon_status;"'
    )


def release_fence(settings: Settings, *, dry_run: bool) -> list[str]:
    """Remove the fence around the host's debits, unless built-in billing here takes over; return what was done."""
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.errors import BillingError
    from containerstacks_billing.schema.fence import is_fenced, unfence_host_billing
    from containerstacks_billing.status.failover import failover_target
    from containerstacks_billing.status.model import limits_of
    from containerstacks_billing.status.read import read_failover

    try:
        conninfo = target(settings).conninfo
        with connect(conninfo, purpose="reading") as connection:
            if not is_fenced(connection):
                return []
        successor = failover_target(read_failover(conninfo), limits_of(settings).failover_after).who
        if successor in {"built-in", "both"}:
            return ["The fence stays up: built-in billing takes over, and the host's scheduler must not."]
        if dry_run:
            return ["Would remove the fence around the host's hourly debits."]
        unfence_host_billing(conninfo)
    except BillingError as error:
        remedy = "As the owner of the tables: containerstacks-billing migrate --unfence-host-billing"
        return [f"Whether the fence around the host's debits is gone is not known: {error}\n{remedy}"]
    return ["Removed the fence: the host's scheduler can debit."]


def _show(findings: list[Finding]) -> None:
    from containerstacks_billing.cli import render

    console = render.stderr()
    for finding in findings:
        console.print(f"{finding.level:<5}{render.printable(finding.message)}", soft_wrap=True)
        for line in (finding.hint or "").splitlines():
            console.print(f"       {render.printable(line)}", soft_wrap=True)


def _show_state(name: str, *, as_json: bool) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.systemd.systemctl import UNIT_DIRECTORY, is_booted, state_of

    state = state_of(name)
    installed = Path(state["FragmentPath"] or UNIT_DIRECTORY / name)
    if as_json:
        render.emit_json(
            {
                "unit": name,
                "installed": installed.exists(),
                "path": str(installed) if installed.exists() else None,
                "active": state["ActiveState"] or None,
                "enabled": state["UnitFileState"] == "enabled",
                "since": state["ActiveEnterTimestamp"] or None,
                "status": state["StatusText"] or None,
                "mainPid": int(state["MainPID"] or 0) or None,
                "restarts": int(state["NRestarts"] or 0),
                "lastExit": state.last_exit,
            }
        )
        return
    if not installed.exists():
        render.stdout().print(f"{name} is not installed. Install it with `containerstacks-billing service install`.",
                              soft_wrap=True)  # fmt: skip
        return
    if not is_booted():
        render.stdout().print(f"{installed} exists, but systemd does not run this machine.", soft_wrap=True)
        return
    pairs = [
        ("unit", str(installed)),
        ("state", f"{state['ActiveState']} ({state['SubState']}), {state['UnitFileState']}"),
        ("status", state["StatusText"] or None),
        ("since", state["ActiveEnterTimestamp"] or None),
        ("restarts", state["NRestarts"]),
        ("last exit", state.last_exit),
    ]
    render.stdout().print(render.facts([pair for pair in pairs if pair[1] is not None]))
