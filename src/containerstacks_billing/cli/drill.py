"""`drill`: fault injection against the installed version, on a database of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import WholeNumber, json_option
from containerstacks_billing.cli.main import all_flags, app
from containerstacks_billing.errors import EXIT_FAILED

if TYPE_CHECKING:
    from rich.console import Console

    from containerstacks_billing.drill.runner import Report

_MOST_FINDINGS = 8
# What is counted stands in the plural; this is how its words are when there is one of it.
_ONE = {
    **{f"{word}s": word for word in ("daemon", "connection", "lease", "biller", "server", "top-up", "debit")},
    **{f"{word}s": word for word in ("resize", "move", "instance", "change", "stop", "start")},
    "processes": "process",
    "their": "its",
}
_EXAMPLES = """
\b
Examples:
  containerstacks-billing drill                  a minute and a half
  containerstacks-billing drill --seconds 600    more of everything
  containerstacks-billing drill --seed 7 --json > drill.json

\b
DATABASE_URL and .env are never read here. Without the extra `embedded` it
needs TEST_DATABASE_URL: a server on which it makes a database and drops it.
"""


@app.command(epilog=_EXAMPLES)
@click.option(
    "--seconds",
    type=WholeNumber(1, 86_400),
    metavar="N",
    default=90,
    help="About how long; the report counts what was done.",
)
@click.option("--seed", type=WholeNumber(0), metavar="N", help="Repeat the choices of an earlier drill.")
@json_option
@click.pass_context
def drill(ctx: click.Context, seconds: int, seed: int | None, as_json: bool) -> None:
    """Break billing on purpose, elsewhere, and prove the books.

    On a database of its own, daemons and billing processes are killed, stopped and cut off while customers
    change everything, and the server crashes. Then an oracle that shares no code with billing counts every
    hour. Run it after an update. Exits 0 when it passed, 1 when anything was charged twice, lost or not explained.
    """
    flags = all_flags(ctx)
    if flags.get("DATABASE_URL"):
        raise click.BadParameter("drill works on a database of its own; --database-url goes with verify.")
    import secrets
    import signal
    import sys

    from containerstacks_billing import logs
    from containerstacks_billing.cli import render
    from containerstacks_billing.drill.runner import run_drill

    logs.configure("error")
    # Ended by systemd or kill it clears the stage too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    remarks = render.stderr()
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    report = run_drill(chosen, seconds, lambda sentence: remarks.print(sentence, soft_wrap=True))
    if as_json:
        from containerstacks_billing.drill.schemas import DrillDocument

        render.emit_json(DrillDocument.of(report))
    else:
        _show(render.stdout(), report)
    if not report.passed:
        ctx.exit(EXIT_FAILED)


def _show(console: Console, report: Report) -> None:
    from containerstacks_billing.cli import render

    kept = {None: "a checkout, with no record to compare with", True: "as delivered", False: "CHANGED since"}
    server = "embedded" if report.embedded else "of TEST_DATABASE_URL"
    installed = report.installed
    console.print()
    console.print(
        render.facts(
            [
                ("Version", f"{installed.version}: {installed.files} files, {kept[installed.as_delivered]}"),
                ("SHA-256", installed.sha256),
                ("Database", f"PostgreSQL {report.server}, {server}, made for this drill and gone"),
                ("Billing as", _billing_as(report)),
                ("Seed", f"{report.seed}, {report.seconds:.0f} s"),
            ]
        )
    )
    for name in (installed.changed or ())[:5]:
        console.print(f"              {render.printable(name)}", soft_wrap=True)
    _count(console, "What was done to billing", report.faults)
    _count(console, "What customers did meanwhile", report.crowd)
    console.print("\nWhat came out")
    console.print(render.facts(_outcome(report)))
    console.print()
    if report.passed:
        console.print("PASS", style="green", end="")
        console.print("  Every hour was charged once, to the cent.")
        return
    _complain(console, report)


def _billing_as(report: Report) -> str:
    if report.owner_bills is None:
        return "a role with what billing_admit() gives, and nothing else"
    return f"the owner of its tables: {report.owner_bills}"


def _count(console: Console, title: str, counts: dict[str, int]) -> None:
    console.print(f"\n{title}")
    for name, number in counts.items():
        console.print(f"{number:>9,}  {_of_one(name) if number == 1 else name}")


def _of_one(name: str) -> str:
    return " ".join(_ONE.get(word, word) for word in name.split(" "))


def _outcome(report: Report) -> list[tuple[str, str]]:
    from containerstacks_billing.text import hour_digits

    due, charged, twice, lost = map(hour_digits, (report.due, report.charged, report.twice, report.lost))
    runs = ", ".join(f"{number} {outcome}" for outcome, number in sorted(report.runs.items()))
    wrong = ", ".join(report.failed_checks)
    return [
        ("Hours", f"{due} due, {charged} charged, {twice} twice, {lost} lost"),
        ("Wallets", f"{report.wallets}, {report.drifts} of them off"),
        ("Runs", runs),
        ("verify", f"{report.checks} checks, {f'wrong: {wrong}' if wrong else 'all right'}"),
    ]


def _complain(console: Console, report: Report) -> None:
    from containerstacks_billing.cli import render

    console.print("FAIL", style="red", end="")
    console.print(f"  {len(report.findings)} findings, after: {report.found_after}")
    console.print(render.facts(("", finding) for finding in report.findings[:_MOST_FINDINGS]))
    if len(report.findings) > _MOST_FINDINGS:
        console.print(f"              and {len(report.findings) - _MOST_FINDINGS} more, in --json")
    console.print("\nDo not bill with this installation. Keep this report and what --json writes; with")
    console.print(
        f"--seed {report.seed} the same faults come in the same order, if not at the same instants."
    )
