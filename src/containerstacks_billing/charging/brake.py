"""The brake: whether a run looks so unlike the last one that a person should look first.

Before its first charge a run reads the whole fleet and compares the reading with that of the last completed run: how
far the database's clock advanced while this host's did, what each plan in use costs per hour, how many instances are
billable, and what an instance costs per hour on average. The fleet is compared and not what happens to be due: so a run
ten minutes after another, the payment of old past-due charges, and an outage that is caught up look the same as any
hour. A database's first run has nothing to compare with but the clocks.

Only growth is a reason, unless SHRINK_BRAKE is on. A fleet that shrinks, a price that falls and a clock that goes back
charge less than an hour ago, and less can be charged later; what was charged too much is out of the wallets. Why each
bound is what it is stands in docs/decisions/0003-brake-on-unusual-runs.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

CLOCK_BOUND = timedelta(minutes=15)
FEWEST_INSTANCES = 10
PLANS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run saw before its first charge.

    `instances` are all that are billable, `rated_instances` those with a usable price, `hourly_rate` the sum of
    theirs. `rates` is the hourly rate of each plan in use, by the name that instances know it by; `highest` is the
    highest rate it had since the last run where that is another, for the hours in between are charged too; `labels` is
    what people call it.
    """

    as_of: datetime
    host_clock: datetime
    instances: int
    rated_instances: int
    hourly_rate: Decimal
    rates: Mapping[str, Decimal] = field(default_factory=dict)
    highest: Mapping[str, Decimal] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    billable_statuses: tuple[str, ...] = ()

    @property
    def rate_per_instance(self) -> Decimal:
        """Average price of one instance for one hour; zero for a fleet without a price."""
        return self.hourly_rate / self.rated_instances if self.rated_instances else Decimal(0)


def hold_reason(last: Reading | None, now: Reading, factor: Decimal) -> str | None:
    """Return the sentence that says why this run must not charge, or None when nothing is unusual.

    `last` is the reading of the last completed run, or of the hold that an operator released since then.
    """
    if sentence := clock_hold_reason(last, now):
        return sentence
    if last is None:
        return None
    return _plans(last, now, factor) or _number(last, now, factor) or _average(last, now, factor)


def clock_hold_reason(last: Reading | None, now: Reading) -> str | None:
    """Return the sentence for a database that is ahead of this host, and got there since the last run.

    It would charge hours that have not passed, and let prices and policies begin that are for later.

    Two clocks that agree now are right, whatever they said before: the last run may have been another machine's.
    """
    ahead = now.as_of - now.host_clock
    if ahead <= CLOCK_BOUND:
        return None
    if last is None:
        return (
            f"the database's clock says {_instant(now.as_of)} and this host's {_instant(now.host_clock)},"
            f" {_span(ahead)} behind"
        )
    database, host = now.as_of - last.as_of, now.host_clock - last.host_clock
    if database - host <= CLOCK_BOUND:
        return None
    return (
        f"since the last run the database's clock moved by {_span(database)} and this host's by {_span(host)}:"
        f" the database says {_instant(now.as_of)}"
    )


def shrink_reason(last: Reading | None, now: Reading, factor: Decimal) -> str | None:
    """Return the sentence for a fleet that shrank to less than one `factor`-th since the last run, or None.

    It charges less, and less can be charged later: so it is a warning, and a hold only where SHRINK_BRAKE says so.
    """
    if last is None or last.instances < FEWEST_INSTANCES or now.instances * factor >= last.instances:
        return None
    are = "instance is" if now.instances == 1 else "instances are"
    return f"{now.instances:,} {are} billable, {last.instances:,} were at the last run"


def is_clock_hold(held: Reading) -> bool:
    """Whether a held run saw a database ahead of its host: then nothing else was compared."""
    return held.as_of - held.host_clock > CLOCK_BOUND


def _plans(last: Reading, now: Reading, factor: Decimal) -> str | None:
    """One plan among many moves no average, and may be charged to thousands."""
    risen = list(_risen(last, now, factor))
    if not risen:
        return None
    named = "; ".join(f"plan {now.labels.get(name, name)} {cost}" for name, cost in risen[:PLANS_NAMED])
    more = f"; and {len(risen) - PLANS_NAMED} plans more" if len(risen) > PLANS_NAMED else ""
    return named + more


def _risen(last: Reading, now: Reading, factor: Decimal) -> Iterator[tuple[str, str]]:
    """Yield the plans that cost too much by now, or did in between, each with what is to be said of its price."""
    for name, rate in sorted(now.rates.items()):
        before = last.rates.get(name, Decimal(0))
        highest = max(rate, now.highest.get(name, rate))
        # Nothing is a multiple of nothing: what was free and has a price now is new, not grown.
        if before > 0 and highest > factor * before:
            if highest > rate:
                yield (
                    name,
                    f"cost up to {highest:f} per hour since the last run (now {rate:f}; {before:f} before)",
                )
            else:
                yield name, f"costs {rate:f} per hour, {before:f} at the last run"


def _number(last: Reading, now: Reading, factor: Decimal) -> str | None:
    if not last.instances or now.instances <= max(factor * last.instances, Decimal(FEWEST_INSTANCES)):
        return None
    were = "was" if last.instances == 1 else "were"
    sentence = f"{now.instances:,} instances are billable, {last.instances:,} {were} at the last run"
    if last.billable_statuses and set(last.billable_statuses) != set(now.billable_statuses):
        before, after = ",".join(last.billable_statuses), ",".join(now.billable_statuses)
        sentence += f" (BILLABLE_STATUSES was {before} and is {after})"
    return sentence


def _average(last: Reading, now: Reading, factor: Decimal) -> str | None:
    """In a small fleet one large customer moves the average, so there only the prices of the plans are compared."""
    if min(last.rated_instances, now.rated_instances) < FEWEST_INSTANCES or last.rate_per_instance <= 0:
        return None
    if now.rate_per_instance <= factor * last.rate_per_instance:
        return None
    return (
        f"an instance costs {now.rate_per_instance:.6f} per hour on average,"
        f" {last.rate_per_instance:.6f} at the last run"
    )


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z}"


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{sign}{days} d {hours} h"
    return f"{sign}{hours} h {minutes} min" if hours else f"{sign}{minutes} min {seconds % 60} s"
