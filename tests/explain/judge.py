"""What explanations have to say about any history: every entry adds up, every month closes, all months are the ledger."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.comparison import EPOCH
from tests.reference.values import HOUR

from containerstacks_billing.explain import why
from containerstacks_billing.explain.month import Month
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.statement import Reading, read_statements
from containerstacks_billing.explain.statement_schema import Statement

if TYPE_CHECKING:
    from tests.histories import History

ZERO = Decimal(0)
SPANS = 4
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
OWN = ("billing", "correction", "reversal", "credit", "other billing")


def judge(history: History, tally: Counter[str]) -> None:
    """Explain everything that a history left behind, and compare it with the model and with the tables."""
    with snapshot(history.fleet.conninfo) as connection:
        _entries(connection, history, tally)
        _hours(connection, history, tally)
        _months(connection, history, tally)


def _entries(connection: Any, history: History, tally: Counter[str]) -> None:
    """Every entry of billing adds up, and each charge stands in one entry or in none."""
    seen: Counter[UUID] = Counter()
    for row in history.fleet.rows(
        "select id from payment_transactions where provider_transaction_id like 'billing-%%'"
    ):
        explanation = why.explain_entry(connection, row.id)
        assert explanation is not None
        assert [] == explanation.findings()
        assert explanation.charges or explanation.adjustments
        seen.update(charge.charge_id for charge in explanation.charges)
        tally["entries explained"] += 1
    linked = history.fleet.rows(
        "select cycle.id from vps_billing_cycles cycle join payment_transactions entry on entry.id = payment_transaction_id"
    )
    assert {row.id: 1 for row in linked} == seen


def _hours(connection: Any, history: History, tally: Counter[str]) -> None:
    """Where the model has a charged hour the explanation has it, past due where it is, and nowhere else."""
    for instance in sorted({unit.instance for unit in history.model.units}):
        units = [unit for unit in history.model.units if unit.instance == instance]
        begin = EPOCH + timedelta(microseconds=min(unit.start for unit in units))
        end = EPOCH + timedelta(microseconds=max(unit.end for unit in units))
        periods = why.instance_hours(connection, instance, begin, end)
        assert periods is not None
        assert [] == [one for one in periods if one.state is why.State.UNKNOWN]
        assert all(one.ends_at == other.starts_at for one, other in pairwise(periods))
        charged = [one for one in periods if one.state in (why.State.BILLED, why.State.PAST_DUE)]
        assert sum((unit.amount for unit in units), ZERO) == sum(
            (one.amount or ZERO for one in charged), ZERO
        )
        length = sum(((one.ends_at - one.starts_at) for one in charged), timedelta())
        assert timedelta(microseconds=sum(unit.end - unit.start for unit in units)) == length
        tally["hours explained"] += len(units)


def _months(connection: Any, history: History, tally: Counter[str]) -> None:
    """Each month begins with what the one before ended with, and all of them together are the ledger."""
    months = _months_of(history)
    statements: dict[UUID, list[Statement]] = {}
    for month in months:
        for one in read_statements(connection, Reading(month, "USD")):
            statements.setdefault(one.organization_id, []).append(one)
    for organization, own in statements.items():
        assert len(months) == len(own)
        broken = organization in history.lost_wallets
        assert [] == [finding for one in own for finding in one.findings if not broken or ("At present" not in finding
                      and "carried out" not in finding)]  # fmt: skip
        units = [unit for unit in history.model.units if unit.organization == organization]
        assert sum((unit.amount for unit in units), ZERO) == sum((one.usage.charges for one in own), ZERO)
        if own[0].reconciling is None:
            continue
        adjusted = sum((unit.adjustment for unit in units), ZERO)
        assert adjusted == sum((one.usage.adjusted for one in own), ZERO)
        for before, after in pairwise(own):
            assert before.reconciling is not None
            assert after.reconciling is not None
            assert before.reconciling.carry_out == after.reconciling.carry_in
            assert before.closing == after.opening
        _is_the_ledger(history, organization, own)
        tally["months closed"] += len(own)


def _is_the_ledger(history: History, organization: UUID, own: list[Statement]) -> None:
    [ledger] = history.fleet.rows(
        "select coalesce(sum(amount), 0) as total, coalesce(sum(amount) filter (where provider_transaction_id like"
        " 'billing-%%'), 0) as debits from payment_transactions where organization_id = %s and currency = 'USD'",
        organization,
    )
    entries = [entry for one in own for entry in one.entries if entry.kind != "opening"]
    assert ledger.total == sum((entry.amount for entry in entries), ZERO)
    assert ledger.debits == sum((entry.amount for entry in entries if entry.kind in OWN), ZERO)


def _months_of(history: History) -> list[Month]:
    """Cut the history at odd instants, as if months ended there: between hours, and in the middle of them.

    A history is shorter than a month, so the ends of real ones would hardly ever fall into it. What the host books has the
    clock of the machine, which is not the fleet's; the last span reaches beyond both.
    """
    first = min((unit.start for unit in history.model.units), default=history.now)
    step = max((history.now - first) // SPANS, 1)
    ends = [first + step * number + number for number in range(1, SPANS)]
    # The whole hours of an instance that ran from the beginning end here.
    ends.append(first + (history.now - first) // HOUR // 2 * HOUR)
    cuts = [FIRST, *sorted(EPOCH + timedelta(microseconds=end) for end in set(ends) if end > first), LAST]
    return [Month("2026-01", "UTC", start, end) for start, end in pairwise(cuts)]
