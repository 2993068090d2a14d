"""`audit post`: pay back what an audit of the host's past proposes, once per customer."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli import orders
from containerstacks_billing.cli.audit import POST_EXAMPLES, audit
from containerstacks_billing.cli.main import configured
from containerstacks_billing.errors import EXIT_FAILED
from containerstacks_billing.identity import operator_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerstacks_billing.adjustments.repayments import Repayment, Wanted

_SHOWN = 50
_NEEDED = ("organizationId", "currency", "proposed", "since")


@dataclass(frozen=True, slots=True)
class AuditFile:
    """A file of `audit --csv`: who is to get how much, since when it looked, and the SHA-256 of its lines."""

    wanted: tuple[Wanted, ...]
    since: datetime | None
    sha256: str


@audit.command("post", epilog=POST_EXAMPLES)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="A file of `audit --csv`, reviewed.",
)
@orders.decision_options
@click.pass_context
def post(
    ctx: click.Context,
    file: Path,
    reason: str | None,
    by: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Pay back what a file of the audit proposes.

    The audit is made again: a customer gets what the file says, never more than is proposed now, and once per audit.
    Exits 1 where a line could not be posted.
    """
    from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope
    from containerstacks_billing.adjustments.repayments import (
        Answer,
        Proposal,
        post_repayments,
        repayments,
    )
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.confirm import require_confirmation
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.audit import AuditOrder, audit_rows
    from containerstacks_billing.explain.snapshot import snapshot

    why = orders.checked_reason(reason)
    settings = configured(ctx).settings
    currency = settings.currency.upper()
    asked = read_audit_file(file, currency)
    conninfo = target(settings).conninfo
    with snapshot(conninfo) as connection:
        rows = audit_rows(connection, AuditOrder(asked.since, None, currency))
    proposals = {one.organization_id: Proposal(one.proposed, one.credited, one.wallet_id) for one in rows}
    found = repayments(asked.wanted, proposals)
    names = {one.organization_id: one.organization or str(one.organization_id) for one in rows}
    if not as_json:
        _show(found, names, currency)
    number, credited = None, 0
    if not dry_run and any(one.answer is Answer.NOW for one in found):
        require_confirmation("\nPay this back?", "a decision about money", yes=yes, as_json=as_json)
        order = Order(
            OrderKind.AUDIT,
            Mode.AUDIT,
            Scope(file_sha256=asked.sha256),
            (by or operator_name())[:255],
            why,
            settings.hours_per_month,
            currency,
        )
        done, credited = post_repayments(conninfo, order, found, holder=f"audit by {operator_name()}")
        number = done.order_id
        if not as_json:
            render.stdout().print(f"\nAudit {number}: {credited:,} wallets were credited.")
    elif not as_json:
        render.stdout().print("\nNothing was changed." if dry_run else "\nThere is nothing to do.")
    if as_json:
        render.emit_json(
            {
                "id": number,
                "dryRun": dry_run,
                "credited": credited,
                "amount": sum((one.amount for one in found if one.answer is Answer.NOW), Decimal(0)),
                "currency": currency,
                "lines": [
                    {"organizationId": one.organization_id, "amount": one.amount, "answer": one.answer.value}
                    for one in found
                ],
            }
        )
    refused = {Answer.MISMATCH, Answer.UNKNOWN, Answer.NO_WALLET}
    if any(one.answer in refused for one in found):
        ctx.exit(EXIT_FAILED)


def _show(found: Sequence[Repayment], names: dict[UUID, str], currency: str) -> None:
    from containerstacks_billing.adjustments.repayments import Answer
    from containerstacks_billing.cli import render
    from containerstacks_billing.money import plain
    from containerstacks_billing.text import counted

    console = render.stdout()
    listed = [
        (
            render.shortened(names.get(one.organization_id, str(one.organization_id))),
            plain(one.amount),
            one.answer.value,
        )
        for one in found[:_SHOWN]
    ]
    console.print(render.table(("Customer", "Amount", "What happens"), listed, right=("Amount",)))
    if len(found) > _SHOWN:
        console.print(f"… and {len(found) - _SHOWN:,} more; --json has all.")
    now = [one for one in found if one.answer is Answer.NOW]
    total = sum((one.amount for one in now), Decimal(0))
    console.print(f"{plain(total)} {currency} to {counted(len(now), 'customer')}.")


def read_audit_file(file: Path, currency: str) -> AuditFile:
    """Return what a file of `audit --csv` says; a usage error that names the line where it says nothing usable."""
    try:
        content = file.read_bytes()
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows, heading = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refused(f"{file} cannot be read: {error}.") from None
    if missing := [name for name in _NEEDED if name not in heading]:
        raise _refused(f"the column {missing[0]} is missing in {file}; `audit --csv` writes it.")
    wanted: dict[UUID, Wanted] = {}
    for number, row in enumerate(rows, 2):
        one = _line(row, f"row {number} of {file}", currency)
        if one.organization_id in wanted:
            raise _refused(f"row {number} of {file} names {one.organization_id} a second time.")
        wanted[one.organization_id] = one
    if len({row["since"] for row in rows}) > 1:
        raise _refused(f"the lines of {file} are of several audits: the column since differs.")
    return AuditFile(tuple(wanted.values()), _instant(rows[0]["since"] if rows else None), _digest(wanted))


def _refused(problem: str) -> click.BadParameter:
    return click.BadParameter(problem, param_hint="--file")


def _line(row: dict[str, str | None], place: str, currency: str) -> Wanted:
    from containerstacks_billing.adjustments.repayments import Wanted

    try:
        organization, amount = UUID(row["organizationId"] or ""), Decimal(row["proposed"] or "0")
    except (ValueError, ArithmeticError):
        raise _refused(f"{place} has no id of an organization or no amount.") from None
    if not amount.is_finite() or amount < 0 or amount != round(amount, 2):
        raise _refused(f"{place}: {row['proposed']} is no amount of whole cents.")
    if (row["currency"] or "").upper() != currency:
        raise _refused(f"{place} is in {row['currency']}, and billing is in {currency}.")
    return Wanted(organization, amount)


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} in the column since is no instant.", param_hint="--file"
        ) from None


def _digest(wanted: dict[UUID, Wanted]) -> str:
    """Return the SHA-256 over who gets how much: the same lines in another order are the same order."""
    lines = sorted(f"{one.organization_id} {one.amount:f}" for one in wanted.values())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
