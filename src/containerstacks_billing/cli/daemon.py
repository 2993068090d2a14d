"""`daemon`: the billing service in the foreground, stopped by a signal."""

from __future__ import annotations

import click

from containerstacks_billing.cli.main import all_flags, app, configured

# In front, so that `ps aux` shows it on a narrow terminal too.
TITLE = "billing-daemon (containerstacks)"

_EXAMPLES = """
\b
Examples:
  containerstacks-billing daemon            in the foreground, as systemd does
  containerstacks-billing daemon --interval 30
  kill -TERM PID     complete the current run and stop; a second one, later
                     than a second after the first, stops after a batch
  kill -HUP PID      read the configuration again
"""


@app.command(epilog=_EXAMPLES)
@click.option("--interval", metavar="MINUTES", help="How often to bill. [default: 60]")
@click.pass_context
def daemon(ctx: click.Context, interval: str | None) -> None:
    """Bill at once and then on schedule, until told to stop.

    Needs DATABASE_URL. A database that is away is waited for. Exits 0 when it was told to stop, 78
    when configuration or schema are wrong.
    """
    from setproctitle import setproctitle

    from containerstacks_billing.config import load as configuration
    from containerstacks_billing.config.target import target
    from containerstacks_billing.daemon.daemon import Daemon

    flags = all_flags(ctx, {"BILLING_INTERVAL_MINUTES": interval})
    found = configured(ctx, flags)
    target(found.settings, embedded_allowed=False)
    setproctitle(TITLE)
    ctx.exit(Daemon(found, load=lambda: configuration.load(flags)).run())
