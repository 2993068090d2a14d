"""`up`: from nothing to a billed fleet, on the embedded database alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from containerstacks_billing.process.cli.application import GlobalOptions, app

if TYPE_CHECKING:
    from rich.console import Console

    from containerstacks_billing.process.cli.summary import Finished

_EXAMPLES = """
\b
Examples:
  containerstacks-billing up --once      make, bill, show
  containerstacks-billing up --once      again: 0 charged, all already billed

\b
The embedded database is for trying the product. DATABASE_URL and .env are
never read here.
"""

_TRY_NEXT = (
    ("run", "charge what became due since; 0 if nothing did"),
    ("run --dry-run", "what the next run would charge, nothing changed"),
    ("status", "who bills, the last run, what waits for somebody"),
    ("verify", "prove that every hour was charged once"),
    ("db psql", "look at the tables"),
)


@app.command(epilog=_EXAMPLES)
def up(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Stop after showing the result.")] = False,
) -> None:
    """Bill a small demo fleet on an embedded PostgreSQL.

    The first time it creates the database, its tables and a demo fleet with a few hours due. Repeating it
    is harmless: only hours that became due meanwhile are charged.
    """
    given = ctx.find_object(GlobalOptions) or GlobalOptions()
    if given.flags.get("DATABASE_URL"):
        raise typer.BadParameter("up works on its own embedded database; --database-url goes with run.")
    from containerstacks_billing.billing.settings import settings_from
    from containerstacks_billing.process import logs
    from containerstacks_billing.process.bill import Order, terms_of
    from containerstacks_billing.process.cli import render
    from containerstacks_billing.process.cli.run import bill_and_watch, holder

    level = given.flags.get("LOG_LEVEL")
    settings = settings_from({"LOG_LEVEL": level} if level else {})
    logs.configure(settings.log_level)
    conninfo = _prepare(render.stderr())
    order = Order(conninfo, terms_of(settings), "up", holder(), wait_seconds=90)
    finished, code = bill_and_watch(order)
    _show(render.stdout(), conninfo, finished)
    if code == 0 and not once:
        render.stdout().print("\nThat is all for now. The daemon and the status page will start here.")
    raise typer.Exit(code)


def _prepare(remarks: Console) -> str:
    """Start the server, bring the schema up to date, make the fleet where there is none; say each on one line."""
    from containerstacks_billing.postgres import migrate as migrations
    from containerstacks_billing.process.cli import render
    from containerstacks_billing.process.demo import make_demo_fleet
    from containerstacks_billing.process.target import made_embedded

    def step(name: str, text: str) -> None:
        remarks.print(f"{name:<12}{render.printable(text)}", soft_wrap=True)

    conninfo = made_embedded(lambda sentence: step("Database", sentence)).conninfo
    pending = migrations.plan(conninfo)
    if pending:
        names = [f"{one.version:03}_{one.name}" for one in pending]
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        step("Migrations", f"{len(names)} to apply, {span}")
        migrations.migrate(conninfo)
    else:
        step("Migrations", "nothing to do, every one has been applied")
    if make_demo_fleet(conninfo):
        step("Demo fleet", "5 organizations and 13 instances, with up to six hours due")
    return conninfo


def _show(console: Console, conninfo: str, finished: Finished) -> None:
    from containerstacks_billing.process.cli import render, summary
    from containerstacks_billing.process.demo import read_books

    books = read_books(conninfo, finished.result.run_id)
    headings = ("Organization", "Instances", "Hours", "Debited", "Balance", "Carried", "Past due")
    rows = [
        (
            one.name,
            one.instances,
            summary.hour_digits(one.hours),
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
