"""`up`: a demo on the embedded database: migrate, bill once, then daemon and web server."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import WholeNumber
from containerstacks_billing.cli.main import all_flags, app
from containerstacks_billing.identity import process_name

if TYPE_CHECKING:
    from rich.console import Console

    from containerstacks_billing.charging.run import RunOrder
    from containerstacks_billing.cli.run_report import Finished

_EXAMPLES = """
\b
Examples:
  containerstacks-billing up --once      make, bill, show
  containerstacks-billing up --once      again: 0 charged, all already billed
  containerstacks-billing up             the same, then daemon and status page

\b
The embedded database is for trying the product. DATABASE_URL and .env are
never read here.
"""

_HOW_TO_STOP = (
    "The embedded database goes on running; `./dev db stop` stops it\n"
    "(installed: `containerstacks-billing db stop`)."
)
_TRY_NEXT = (
    ("run", "charge what became due since; 0 if nothing did"),
    ("run --dry-run", "what the next run would charge, nothing changed"),
    ("status", "who bills, the last run, what needs a decision"),
    ("verify", "prove that every hour was charged once"),
    ("db psql", "look at the tables"),
)


@app.command(epilog=_EXAMPLES)
@click.option("--once", is_flag=True, help="Stop after showing the result.")
@click.option(
    "--port", type=WholeNumber(1, 65535), metavar="PORT", default=3001, help="The port of the status page."
)
@click.option("--no-history", is_flag=True, help="Begin without the month of history.")
@click.pass_context
def up(ctx: click.Context, once: bool, port: int, no_history: bool) -> None:
    """Bill a demo fleet on an embedded PostgreSQL, then serve it.

    The first time it creates the database, its tables and a demo fleet with a few hours due. Repeating it
    is harmless: only hours that became due meanwhile are charged. Without --once a month of history is
    billed first, in seconds, for the pages; daemon and status page then run until Ctrl-C, which stops
    everything that was started here.
    """
    flags = all_flags(ctx)
    if flags.get("DATABASE_URL"):
        raise click.BadParameter("up works on its own embedded database; --database-url goes with run.")
    from containerstacks_billing import logs
    from containerstacks_billing.charging.run import RunOrder, terms_of
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.run import bill_and_watch
    from containerstacks_billing.daemon.signals import without_its_terminal
    from containerstacks_billing.sandbox.server import EmbeddedServer, default_directory
    from containerstacks_billing.settings import settings_from

    level = {"LOG_LEVEL": text} if (text := flags.get("LOG_LEVEL")) else {}
    settings = settings_from(level)
    logs.configure(settings.log_level)
    server = EmbeddedServer(default_directory())
    goes_on = once or server.status().running
    try:
        conninfo, is_new = _prepare(render.stderr())
        order = RunOrder(conninfo, terms_of(settings), "up", process_name(), wait_seconds=90)
        if is_new and not once and not no_history:
            _bill_a_month(render.stderr(), order)
        finished, code = bill_and_watch(order)
        _show(render.stdout(), conninfo, finished)
        if code == 0 and not once:
            code = _run_services(render.stdout(), conninfo, port, level)
    finally:
        if goes_on:
            with without_its_terminal():
                render.stderr().print(_HOW_TO_STOP, soft_wrap=True)
        else:
            server.stop()
    ctx.exit(code)


def _run_services(console: Console, conninfo: str, port: int, level: dict[str, str]) -> int:
    """Run daemon and application side until Ctrl-C; return the exit code."""
    import secrets

    from containerstacks_billing import logs
    from containerstacks_billing.cli import up_services
    from containerstacks_billing.daemon.signals import interruptible, without_its_terminal
    from containerstacks_billing.sandbox.server import default_directory
    from containerstacks_billing.settings import settings_from

    token, log = secrets.token_urlsafe(24), default_directory() / "up.log"
    texts = {"DATABASE_URL": conninfo, "ADMIN_TOKEN": token, "PORT": str(port), **level}
    settings = settings_from(texts)
    if os.environ.get("PORT", str(port)) != str(port):
        print("PORT of the environment is not looked at here; --port is.", file=sys.stderr)
    with log.open("w", encoding="utf-8") as output, interruptible() as asked:
        logs.configure(settings.log_level, secrets=(token,), stream=output)
        with up_services.running(settings, conninfo, asked.stopping.set) as services:
            with without_its_terminal():
                console.print("\nDaemon and application side are running; Ctrl-C stops them.")
                console.print(f"  Status page   http://127.0.0.1:{port}/status")
                console.print(f"  Sign in with  {token}  (for this session)")
                console.print(f"  Log           {log}", soft_wrap=True)
            asked.stopping.wait()
            problem = next((one.problem for one in services if one.problem), None)
            with without_its_terminal():
                words = "" if problem is None else f": {problem}. Its log is {log}"
                console.print(f"Stopping{words or '.'}", soft_wrap=True)
        logs.configure(settings.log_level)
    return 0 if problem is None else 1


def _bill_a_month(remarks: Console, order: RunOrder) -> None:
    from containerstacks_billing.sandbox.history import make_history

    remarks.print(f"{'History':<12}a month, billed by real runs; some seconds", soft_wrap=True)
    runs = make_history(order)
    remarks.print(f"{'':<12}{runs} runs, with an outage, a new price and a customer who owes", soft_wrap=True)


def _prepare(remarks: Console) -> tuple[str, bool]:
    """Start the server, migrate, and create the demo fleet where there is none; return where, and whether it is new."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import made_embedded
    from containerstacks_billing.sandbox.demo import make_demo_fleet
    from containerstacks_billing.schema import migrator as migrations

    def step(name: str, text: str) -> None:
        remarks.print(f"{name:<12}{render.printable(text)}", soft_wrap=True)

    conninfo = made_embedded(lambda sentence: step("Database", sentence)).conninfo
    pending = migrations.plan(conninfo)
    if pending:
        names = [one.label for one in pending]
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        step("Migrations", f"{len(names)} to apply, {span}")
        migrations.migrate(conninfo)
    else:
        step("Migrations", "nothing to do, every one has been applied")
    is_new = make_demo_fleet(conninfo)
    if is_new:
        step("Demo fleet", "5 organizations and 13 instances, with up to six hours due")
    return conninfo, is_new


def _show(console: Console, conninfo: str, finished: Finished) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli import run_report as summary
    from containerstacks_billing.sandbox.demo import read_books
    from containerstacks_billing.text import hour_digits

    books = read_books(conninfo, finished.result.run_id)
    headings = ("Organization", "Instances", "Hours", "Debited", "Balance", "Carried", "Past due")
    rows = [
        (
            one.name,
            one.instances,
            hour_digits(one.hours),
            one.debited,
            one.balance,
            one.billing_carry,
            one.owed or None,
        )
        for one in books
    ]
    console.print()
    summary.show(console, finished)
    console.print()
    console.print(render.table(headings, rows, right=headings[1:]))
    console.print("\nTry next:")
    for verb, what in _TRY_NEXT:
        console.print(f"  ./dev {verb:<16}{what}")
