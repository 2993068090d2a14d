"""`statement`: what one month did to a wallet, and what was used in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_FAILED
from containerstacks_billing.identity import operator_name

if TYPE_CHECKING:
    from containerstacks_billing.explain.statement import Reading
    from containerstacks_billing.explain.statement_files import Publisher
    from containerstacks_billing.explain.statement_schema import Statement

_EXAMPLES = """
\b
Examples:
  containerstacks-billing statement ID --month 2026-11 --pdf file.pdf
  containerstacks-billing statement --all --month 2026-11 --out folder
  containerstacks-billing statement --all --month 2026-11 --issue
  containerstacks-billing statement verify folder/ID.json

\b
A letterhead is a TOML file with name, address, contact, tax_line, footer,
number (a format, like ST-{year}-{number:06}), locale, paper and logo.
"""
_ISSUED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class _Request:
    """What the flags ask for."""

    conninfo: str
    reading: Reading
    files: dict[str, Path]
    letterhead: Path | None
    template: Path | None
    issue: bool
    dry_run: bool
    yes: bool
    as_json: bool


class _File(click.Path):
    def __init__(self, *, exists: bool = False, folder: bool = False) -> None:
        super().__init__(exists=exists, dir_okay=folder, file_okay=not folder, path_type=Path)


@app.command(epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="[ORGANIZATION | verify FILE]")
@click.option("--month", metavar="YYYY-MM", help="The month.")
@click.option("--timezone", metavar="ZONE", default="UTC", help="Where the month begins and ends.")
@click.option("--all", "every", is_flag=True, help="Of every organization.")
@click.option("--out", type=_File(folder=True), metavar="DIR", help="With --all: where the files go.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(("json", "csv", "html", "pdf")),
    multiple=True,
    help="With --out; may be given several times.",
)
@click.option("--csv", "csv_file", type=_File(), metavar="FILE", help="Write it for a spreadsheet.")
@click.option("--html", "html_file", type=_File(), metavar="FILE", help="Write it for a browser.")
@click.option("--pdf", "pdf_file", type=_File(), metavar="FILE", help="Write it for print.")
@click.option("--letterhead", type=_File(exists=True), metavar="FILE", help="Who issues it, as TOML.")
@click.option("--template", type=_File(exists=True), metavar="FILE", help="Your own .html or .typ template.")
@click.option("--issue", is_flag=True, help="Number it and keep it as it is, once and for ever.")
@click.option("--dry-run", is_flag=True, help="With --issue: only show what would be issued.")
@click.option("--yes", is_flag=True, help="With --issue: do not ask.")
@json_option
@click.pass_context
def statement(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    month: str | None,
    timezone: str,
    every: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Show a month: what was paid in and used, to the digit.

    A cash account and a usage account, each of which closes, and what connects them. A preview is
    computed; what was issued is shown as it was, with what changed since. Reads one snapshot, and writes
    only with --issue. Exits 1 when a statement does not add up, or a verified file is not what the books
    say.
    """
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.month import month_named
    from containerstacks_billing.explain.statement import Reading

    settings = configured(ctx).settings
    if words[:1] == ("verify",) and len(words) == 2:
        ctx.exit(_verify(target(settings).conninfo, Path(words[1]), as_json=as_json))
    organization = _organization(words, every)
    if month is None:
        raise click.UsageError("--month says which month, like --month 2026-11.")
    files = {name: given[f"{name}_file"] for name in ("csv", "html", "pdf") if given[f"{name}_file"]}
    _refuse_contradictions(every, files, given)
    request = _Request(
        target(settings).conninfo,
        Reading(month_named(month, timezone), settings.currency),
        files,
        given["letterhead"],
        given["template"],
        given["issue"],
        given["dry_run"],
        given["yes"],
        as_json,
    )
    if organization is None:
        ctx.exit(_every_statement(request, given["out"], given["formats"] or ("json",)))
    ctx.exit(_one_statement(request, organization))


def _organization(words: tuple[str, ...], every: bool) -> UUID | None:
    if every and not words:
        return None
    if every or len(words) != 1:
        raise click.UsageError("Give one organization, or --all, or `verify FILE`.")
    try:
        return UUID(words[0])
    except ValueError:
        raise click.BadParameter(
            f"{words[0]!r} is no id of an organization.", param_hint="ORGANIZATION"
        ) from None


def _refuse_contradictions(every: bool, files: dict[str, Path], given: dict[str, Any]) -> None:
    if every and files:
        raise click.UsageError(
            "--csv, --html and --pdf are for one organization; --all takes --out and --format."
        )
    if every and given["out"] is None and not given["issue"]:
        raise click.UsageError("--all needs --out DIR, or --issue.")
    if not every and (given["out"] is not None or given["formats"]):
        raise click.UsageError("--out and --format belong to --all.")
    if not given["issue"] and (given["dry_run"] or given["yes"]):
        raise click.UsageError("--dry-run and --yes belong to --issue.")
    template = given["template"]
    if template is not None and template.suffix not in (".html", ".typ"):
        raise click.BadParameter("a template is called .html or .typ.", param_hint="--template")


def _one_statement(request: _Request, organization: UUID) -> int:
    from containerstacks_billing.cli import render, statement_report
    from containerstacks_billing.explain.issue import as_issued
    from containerstacks_billing.explain.snapshot import snapshot

    with snapshot(request.conninfo) as connection:
        shown = as_issued(connection, request.reading, organization)
    if shown is None:
        raise click.BadParameter(f"the books know no organization {organization}.", param_hint="ORGANIZATION")
    if request.issue:
        shown = _issue_one(request, shown)
    with _publisher(request, set(request.files)) as publisher:
        _write(publisher, shown, request.files)
    if request.as_json:
        render.emit_json(shown.as_json())
    elif not request.files:
        statement_report.show_statement(render.stdout(), shown)
    _remark(shown)
    return EXIT_FAILED if shown.findings else 0


def _issue_one(request: _Request, shown: Statement) -> Statement:
    """Issue a statement, and return it as it is issued; one that was issued before is returned as it is."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.confirm import require_confirmation
    from containerstacks_billing.errors import WorkFailed
    from containerstacks_billing.explain.issue import issue, reason_not_to_issue

    reason = reason_not_to_issue(shown)
    if shown.number is not None or request.dry_run:
        would = f"It is not issued: {reason}." if reason else "It would be issued under the next number."
        render.stderr().print(would)
        return shown
    if reason is not None:
        raise WorkFailed(f"It cannot be issued: {reason}.")
    require_confirmation("Issue it, once and for ever?", "issuing", yes=request.yes, as_json=request.as_json)
    issued = issue(request.conninfo, [shown], operator_name())
    if not issued:
        raise WorkFailed(
            "It was issued by another process in this moment.", "Give the command again to see it."
        )
    return issued[0]


def _every_statement(request: _Request, out: Path | None, formats: tuple[str, ...]) -> int:
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.statement_report import Totals
    from containerstacks_billing.explain.issue import all_as_issued
    from containerstacks_billing.explain.snapshot import snapshot

    if request.issue and not request.dry_run:
        _agree(request)
    month = request.reading.month
    totals = Totals(month.name, month.timezone, request.reading.currency)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with (
        _publisher(request, set(formats) if out else set()) as publisher,
        snapshot(request.conninfo) as connection,
    ):
        for shown in _issued(request, all_as_issued(connection, request.reading), totals):
            if shown.is_empty:
                totals.empty += 1
                continue
            totals.add(shown)
            if out is not None:
                _write(publisher, shown, {form: out / f"{shown.organization_id}.{form}" for form in formats})
    if request.as_json:
        render.emit_json(totals.as_document())
    else:
        totals.show(render.stdout())
    for finding in totals.findings:
        render.stderr().print(f"It does not add up: {finding}")
    return EXIT_FAILED if totals.findings else 0


def _agree(request: _Request) -> None:
    from containerstacks_billing.cli.confirm import require_confirmation

    question = f"Issue the statements of {request.reading.month.name}, once and for ever?"
    require_confirmation(question, "issuing", yes=request.yes, as_json=request.as_json)


def _issued(request: _Request, statements: Iterator[Statement], totals: Any) -> Iterator[Statement]:
    """Yield statements as they are, or as they are issued, a bounded number of them at once."""
    from containerstacks_billing.explain.issue import issue, reason_not_to_issue

    if not request.issue:
        yield from statements
        return
    waiting: list[Statement] = []

    def issue_waiting() -> Iterator[Statement]:
        if request.dry_run or not waiting:
            totals.issued += len(waiting)
            yield from waiting
        else:
            issued = issue(request.conninfo, waiting, operator_name())
            totals.issued += len(issued)
            yield from issued
        waiting.clear()

    for one in statements:
        reason = None if one.is_empty else reason_not_to_issue(one)
        if reason is not None and one.number is None:
            totals.not_issued[reason] += 1
        if one.is_empty or reason is not None:
            yield one
            continue
        waiting.append(one)
        if len(waiting) == _ISSUED_AT_ONCE:
            yield from issue_waiting()
    yield from issue_waiting()


@contextmanager
def _publisher(request: _Request, formats: set[str]) -> Iterator[Publisher]:
    from containerstacks_billing.explain.letterhead import read_letterhead
    from containerstacks_billing.explain.statement_files import FORMATS, publisher

    reading = request.reading
    chosen = {form for form in FORMATS if form in formats}
    letterhead = read_letterhead(request.letterhead)
    with publisher(chosen, letterhead, reading.currency, reading.month.timezone, request.template) as made:
        yield made


def _write(publisher: Publisher, shown: Statement, files: dict[str, Path]) -> None:
    from containerstacks_billing.explain.statement_files import FORMATS, write_file

    for form in FORMATS:
        if form in files:
            write_file(files[form], publisher.contents(shown, form))


def _remark(shown: Statement) -> None:
    """Say on standard error what does not add up, and what changed since it was issued."""
    from containerstacks_billing.cli import render

    for finding in shown.findings:
        render.stderr().print(f"It does not add up: {finding}")
    if shown.changes:
        render.stderr().print("It is shown as it was issued; the books say otherwise since:")
        for change in shown.changes:
            render.stderr().print(render.indented(change, 2))


def _verify(conninfo: str, path: Path, *, as_json: bool) -> int:
    from containerstacks_billing.cli import render
    from containerstacks_billing.explain.statement_proof import prove

    proof = prove(conninfo, path)
    if as_json:
        render.emit_json(proof.as_document())
    else:
        for line in proof.lines():
            render.stdout().print(line, soft_wrap=True)
    return 0 if proof.ok else EXIT_FAILED
