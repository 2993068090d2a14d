"""`db`: start, stop and look at the embedded PostgreSQL of `up`; never the database of DATABASE_URL."""

from __future__ import annotations

import os

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import app

_EXAMPLES = """
\b
Examples:
  containerstacks-billing db start
  containerstacks-billing db status --json | jq .running
  containerstacks-billing db psql
  containerstacks-billing db stop
"""


@app.group("db", epilog=_EXAMPLES)
def verbs() -> None:
    """Manage the embedded PostgreSQL; it is not for production."""


_PSQL_EXAMPLES = """
\b
Examples:
  containerstacks-billing db psql
  containerstacks-billing db psql -- -c 'select count(*) from vps_instances'
"""


@verbs.command(epilog=_EXAMPLES)
def start() -> None:
    """Start it, the first time create it; harmless if it runs."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.sandbox.server import EmbeddedServer, default_directory

    server = EmbeddedServer(default_directory())
    server.start()
    status = server.status()
    render.stdout().print(f"PostgreSQL {status.version} is running in {status.directory}.", soft_wrap=True)
    render.stderr().print("It is for trying and testing, not for production.", style="yellow")


@verbs.command(epilog=_EXAMPLES)
def stop() -> None:
    """Stop it; its data stays."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.sandbox.server import EmbeddedServer, default_directory

    server = EmbeddedServer(default_directory())
    stopped = server.stop()
    sentence = "Stopped; the data stays in" if stopped else "Nothing was running in"
    render.stdout().print(f"{sentence} {server.directory}.", soft_wrap=True)


@verbs.command(epilog=_EXAMPLES)
@json_option
def status(as_json: bool) -> None:
    """Show whether it runs, its version and where it is."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.sandbox.server import EmbeddedServer, default_directory

    found = EmbeddedServer(default_directory()).status()
    if as_json:
        render.emit_json(
            {
                "running": found.running,
                "version": found.version,
                "directory": str(found.directory),
                "socket": str(found.socket),
            }
        )
        return
    state = "running" if found.running else "stopped" if found.version else "never created"
    rows = [
        ("State", state),
        ("Version", found.version),
        ("Directory", found.directory),
        ("Socket", found.socket),
    ]
    for name, value in rows:
        render.stdout().print(f"{name:<10}{render.printable(value)}", soft_wrap=True)


@verbs.command(epilog=_PSQL_EXAMPLES)
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENT]...", help="Passed on to psql.")
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on it; `up` or `db start` must have made it."""
    from containerstacks_billing.config.target import EMBEDDED_DATABASE, embedded_database_exists
    from containerstacks_billing.errors import ConfigurationError
    from containerstacks_billing.sandbox.server import EmbeddedServer, default_directory

    server = EmbeddedServer(default_directory())
    if server.status().version is None:
        raise ConfigurationError(
            "There is no embedded database.", hint="Make one with `containerstacks-billing up`."
        )
    server.start()
    name = EMBEDDED_DATABASE if embedded_database_exists(server) else "postgres"
    command = [server.psql(), *arguments]
    environment = server.environment(name)
    os.execve(command[0], command, environment)  # noqa: S606 - psql takes over the terminal and its signals
