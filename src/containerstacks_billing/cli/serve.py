"""`serve`: the application side, with web server and built-in billing, stopped by a signal."""

from __future__ import annotations

import click

from containerstacks_billing.cli.arguments import Number
from containerstacks_billing.cli.main import app, configured

_EXAMPLES = """
\b
Examples:
  containerstacks-billing serve
  containerstacks-billing serve --host 0.0.0.0 --port 8080
  curl -H "Authorization: Bearer $ADMIN_TOKEN" \\
    http://localhost:3001/api/health/billing-daemon
"""


@app.command(epilog=_EXAMPLES)
@click.option("--host", metavar="ADDRESS", help="The address to listen on. [default: 127.0.0.1]")
@click.option("--port", metavar="PORT", help="The port to listen on. [default: 3001]")
@click.option("--check-seconds", type=Number(0.05, 60), default=60.0, hidden=True)
@click.pass_context
def serve(ctx: click.Context, host: str | None, port: str | None, check_seconds: float) -> None:
    """Serve health and pages, and bill when the daemon is silent.

    It serves metrics and the API too. Needs DATABASE_URL. Built-in billing takes over FAILOVER_AFTER_MINUTES after
    the last heartbeat, and stops when one returns; BUILT_IN_BILLING=off keeps it
    off. Make a token for the API with `token create`.
    """
    settings = configured(ctx, {"HOST": host, "PORT": port}).settings
    from containerstacks_billing.config.target import target
    from containerstacks_billing.daemon.built_in import BuiltInBilling
    from containerstacks_billing.web import server
    from containerstacks_billing.web.app import create_application

    conninfo = target(settings, embedded_allowed=False).conninfo
    built_in = BuiltInBilling(settings, conninfo, check_seconds=check_seconds)
    server.serve(create_application(settings, conninfo, built_in), settings.host, settings.port)
