"""Independent oracle: recomputes what every instance owes from its own journal.

It has a journal of its own (journal.sql), written by triggers in the host's transactions: when an instance was what,
when a plan cost how much, what went into a wallet. From that it works out, hour by hour, what had to be charged, and
lays the charges, the ledger and the wallets beside it. It imports the standard library and the driver, calls nothing
of the product, and believes no watermark, no segment, no recorded price and no run.

Judge at rest, after a run that had nothing left to do, with the clock at its highest reading (a span
that was closed in a time that was set back is due only then). Two rules are taken from the design: an hour
that was charged stays charged when the clock is set back, and hours that an operator waived are not lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from containerstacks_billing.drill.expected_charges import HOUR, History, OwedSpan, hours_of, instant, minus

Connection = psycopg.Connection[Any]
CENT = Decimal("0.01")
EIGHT_DIGITS = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class Drift:
    """A wallet whose balance differs from its charges and entries."""

    wallet: UUID
    expected: Decimal
    found: Decimal


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of the oracle; hours are instance-hours, `lines` describes every finding."""

    due: Decimal
    charged: Decimal
    twice: Decimal
    lost: Decimal
    unowed: Decimal
    drifts: tuple[Drift, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.lines


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge of ours as it stands in the table, its instants in microseconds."""

    organization: UUID
    instance: UUID
    start: int
    end: int
    rate: Decimal
    amount: Decimal
    status: str


@dataclass(slots=True)
class _Counts:
    """What is counted while the instances are gone through; hours in microseconds."""

    due: int = 0
    charged: int = 0
    twice: int = 0
    lost: int = 0
    unowed: int = 0
    lines: list[str] = field(default_factory=list)


def install(
    conn: Connection,
    *,
    statuses: Sequence[str] = ("running",),
    partial_hour: str = "prorate",
    hours_per_month: int = 730,
    currency: str = "USD",
) -> None:
    """Begin the journal in a database that has no charges of ours yet; the terms are those that runs will bill by."""
    with conn.transaction():
        if conn.execute("select true from vps_billing_cycles where run_id is not null limit 1").fetchone():
            raise ValueError("the journal has to begin before the first charge")
        conn.execute((Path(__file__).parent / "oracle_journal.sql").read_text())
        conn.execute(
            "insert into oracle.terms values (%s, %s, %s, %s)",
            (list(statuses), partial_hour, hours_per_month, currency),
        )


def judge(conn: Connection) -> Verdict:
    """Work out what was owed until now, and compare."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        history = History.read(conn)
        charges = _charges(conn)
        waived = _waived(conn)
        tally = _Counts()
        of_instance: dict[UUID, list[Charge]] = defaultdict(list)
        for charge in charges:
            of_instance[charge.instance].append(charge)
        owed: dict[UUID, list[OwedSpan]] = defaultdict(list)
        for span in history.owed_spans():
            owed[span.instance].append(span)
        for identifier in sorted(owed.keys() | of_instance.keys(), key=lambda one: one.int):
            _compare(history, owed[identifier], of_instance[identifier], waived[identifier], tally)
        drifts = _wallets(conn, history.currency, charges, tally)
    due, charged, twice, lost, unowed = (
        Decimal(count) / HOUR for count in (tally.due, tally.charged, tally.twice, tally.lost, tally.unowed)
    )
    return Verdict(due, charged, twice, lost, unowed, tuple(drifts), tuple(tally.lines))


def _charges(conn: Connection) -> list[Charge]:
    rows = conn.execute(
        """
        select organization_id, vps_instance_id, (extract(epoch from billing_period_start) * 1000000)::bigint,
            (extract(epoch from billing_period_end) * 1000000)::bigint, hourly_rate, total_amount, status
        from vps_billing_cycles where run_id is not null
        order by vps_instance_id, billing_period_start, billing_period_end
        """
    )
    return [Charge(*row) for row in rows]


def _waived(conn: Connection) -> dict[UUID, list[tuple[int, int]]]:
    waived: dict[UUID, list[tuple[int, int]]] = defaultdict(list)
    for identifier, start, end in conn.execute(
        """
        select instance_id, (extract(epoch from waived_from) * 1000000)::bigint,
            (extract(epoch from waived_to) * 1000000)::bigint
        from billing_decisions where waived_from < waived_to
        """
    ):
        waived[identifier].append((start, end))
    return waived


def _compare(
    history: History,
    owed: list[OwedSpan],
    charges: list[Charge],
    waived: list[tuple[int, int]],
    tally: _Counts,
) -> None:
    """Lay the charges of one instance beside what it owed."""
    until = 0
    for charge in charges:
        if charge.start < until:
            tally.twice += min(until, charge.end) - charge.start
            tally.lines.append(f"{_named(charge)} is charged twice, until {instant(min(until, charge.end))}")
        until = max(until, charge.end)
        tally.charged += charge.end - charge.start
        _compare_price(history, owed, charge, tally)
    for span in owed:
        tally.due += span.end - span.start
        covered = [(c.start, c.end) for c in charges if c.organization == span.organization]
        for start, end in minus((span.start, span.end), [*covered, *waived]):
            tally.lost += end - start
            tally.lines.append(
                f"instance {span.instance} ran from {instant(start)} to {instant(end)} for organization"
                f" {span.organization} and is not charged: {_hours(end - start)} h lost"
            )


def _compare_price(history: History, owed: list[OwedSpan], charge: Charge, tally: _Counts) -> None:
    """A charge has only hours that were owed, each at a price in force at its start, and comes to their sum."""
    mine = [s for s in owed if s.organization == charge.organization]
    for start, end in minus((charge.start, charge.end), [(s.start, s.end) for s in mine]):
        tally.unowed += end - start
        tally.lines.append(
            f"{_named(charge)} charges {instant(start)} to {instant(end)}, which were not owed: {_hours(end - start)} h"
        )
    for start, end in hours_of(charge.start, charge.end):
        span = next((s for s in mine if s.start <= start < s.end), None)
        if span is None:
            continue
        if (start - span.start) % HOUR:
            tally.lines.append(
                f"{_named(charge)}: no hour of {instant(span.start)} begins at {instant(start)}"
            )
        if end < start + HOUR and end != span.end:
            tally.lines.append(f"{_named(charge)} ends inside an hour, at {instant(end)}")
        rates = history.rates(span.plan, start)
        if charge.rate not in rates:
            right = " or ".join(f"{rate:f}" for rate in sorted(rates)) or "unknown"
            tally.lines.append(
                f"{_named(charge)}: the rate of {instant(start)} is {charge.rate.normalize():f} and should be {right}"
            )
            break
    amount = _amount(charge)
    if charge.amount != amount:
        tally.lines.append(f"{_named(charge)} comes to {amount:f} and is {charge.amount:f}")


def _amount(charge: Charge) -> Decimal:
    with localcontext(Context(prec=60)):
        return (charge.rate * (charge.end - charge.start) / HOUR).quantize(EIGHT_DIGITS, ROUND_HALF_UP)


def _wallets(conn: Connection, currency: str, charges: Iterable[Charge], tally: _Counts) -> list[Drift]:
    """Expect of every paying wallet: opening and entries of the host less the whole cents of what was billed."""
    billed: dict[UUID, Decimal] = defaultdict(Decimal)
    unpaid: dict[UUID, Charge] = {}
    for charge in charges:
        if charge.status == "billed":
            billed[charge.organization] += charge.amount
        elif charge.status == "failed":
            oldest = unpaid.setdefault(charge.organization, charge)
            if (charge.start, charge.instance.int) < (oldest.start, oldest.instance.int):
                unpaid[charge.organization] = charge
    for organization, amount in conn.execute(
        "select organization_id, sum(amount) from billing_adjustments group by 1"
    ):
        billed[organization] += amount
    drifts = []
    for wallet, organization, balance, carry, expected, ledger in conn.execute(
        """
        select distinct on (organization_id) id, organization_id, balance, billing_carry,
            (select coalesce(sum(amount), 0) from oracle.money
             where organization_id = w.organization_id and coalesce(wallet_id, w.id) = w.id),
            (select coalesce(sum(amount), 0) from payment_transactions p where organization_id = w.organization_id
                and provider_transaction_id like 'billing-%%' and p.status = 'completed')
        from wallets w where upper(currency) = %s
        order by organization_id, created_at, id
        """,
        (currency,),
    ):
        debit = billed[organization].quantize(CENT, ROUND_FLOOR)
        rest = billed[organization] - debit
        if (balance, carry) != (expected - debit, rest):
            drifts.append(Drift(wallet, expected - debit - rest, balance - carry))
            tally.lines.append(
                f"wallet {wallet} of organization {organization} should hold {expected - debit:f} and carry {rest:f};"
                f" it holds {balance:f} and carries {carry:f}"
            )
        if ledger != -debit:
            tally.lines.append(
                f"the entries of billing on wallet {wallet} come to {ledger:f} and should come to {-debit:f}"
            )
        owing = unpaid.get(organization)
        if owing and min(owing.amount, owing.rate) <= balance - carry:
            tally.lines.append(f"{_named(owing)} is past due, and wallet {wallet} could pay its first hour")
    return drifts


def _named(charge: Charge) -> str:
    return (
        f"the charge of instance {charge.instance} from {instant(charge.start)} to {instant(charge.end)}"
        f" ({charge.status}, organization {charge.organization})"
    )


def _hours(microseconds: int) -> str:
    return f"{Decimal(microseconds) / HOUR:.6f}".rstrip("0").rstrip(".")
