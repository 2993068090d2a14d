"""Metrics of money and time: the last runs, the totals of all of them, and what waits.

Counters come out of the tables, so they go on where they were after a restart and are equal on every replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from containerstacks_billing.status.model import Health, RunRecord
from containerstacks_billing.status.totals import DURATION_BUCKETS, Totals

PREFIX = "containerstacks_billing_"


def run_metrics(health: Health) -> Iterator[Metric]:
    """Yield the open run and the last ones."""
    last, successful, open_run = health.last_finished, health.last_successful, health.in_progress
    yield gauge("run_in_progress", "Whether a run is open", open_run is not None)
    if open_run is not None:
        yield gauge(
            "run_in_progress_seconds",
            "How long the open run takes already",
            (health.now - open_run.started_at).total_seconds(),
        )
    if successful is not None:
        yield gauge(
            "last_successful_run_timestamp_seconds",
            "When the last completed run ended",
            _timestamp(_ended(successful)),
        )
    if last is None:
        return
    yield gauge(
        "last_run_timestamp_seconds",
        "When the last run ended, whatever its outcome",
        _timestamp(_ended(last)),
    )
    outcomes = ("completed", "interrupted", "failed", "held")
    yield one_of(
        "last_run_outcome", "How the last run ended: 1 for one of them", "outcome", outcomes, last.outcome
    )
    yield gauge("last_run_duration_seconds", "How long the last run took", last.duration_seconds or 0.0)
    yield gauge("last_run_instances", "Instances that the last run billed", last.instances_billed)
    yield gauge(
        "last_run_usage_seconds",
        "Time of instances that the last run charged",
        float(last.hours) * 3600,
    )
    yield gauge(
        "last_run_amount",
        "Amount that the last run billed, in the currency of the wallets",
        float(last.amount),
    )
    yield gauge(
        "past_due_instances",
        "Instances with charges that their wallet could not pay",
        last.past_due_instances,
    )


def backlog_metrics(health: Health) -> Iterator[Metric]:
    """Yield what waits for a decision or a delivery."""
    yield gauge("quarantined_instances", "Instances quarantined for bad data", health.quarantined_instances)
    yield gauge("held_instances", "Instances whose hours wait for a decision", health.held_instances)
    yield gauge(
        "events_pending", "Events that wait to be delivered, ten thousand at most", health.events_pending
    )
    yield gauge("events_dead", "Events that were given up, ten thousand at most", health.events_dead)


def total_metrics(totals: Totals, now: datetime, currency: str) -> Iterator[Metric]:
    """Yield what can be summed over time, and what is owed, waits or was proven at present."""
    runs = CounterMetricFamily(
        f"{PREFIX}runs", "Runs that ended, by outcome and by what started them", labels=["outcome", "trigger"]
    )
    for total in totals.runs:
        runs.add_metric([total.outcome, total.trigger], total.runs)
    yield runs
    amount = CounterMetricFamily(
        f"{PREFIX}charged_amount", "Exact amount that all runs charged", labels=["currency"]
    )
    amount.add_metric([currency], float(sum(total.amount for total in totals.runs)))
    yield amount
    seconds = float(3600 * sum(total.hours for total in totals.runs))
    yield CounterMetricFamily(
        f"{PREFIX}charged_usage_seconds", "Time of instances that all runs charged", value=seconds
    )
    yield _durations(totals)
    wallets = GaugeMetricFamily(
        f"{PREFIX}wallets_ending",
        "Wallets that are empty within so many hours, each counted once",
        labels=["within"],
    )
    for level in (3, 24, 72):
        wallets.add_metric([f"{level}h"], totals.wallets.get(level, 0))
    yield wallets
    if totals.past_due_amount is not None:
        past_due = GaugeMetricFamily(
            f"{PREFIX}past_due_amount",
            "Amount that wallets could not pay, at the end of the last run",
            labels=["currency"],
        )
        past_due.add_metric([currency], float(totals.past_due_amount))
        yield past_due
    waiting = totals.oldest_waiting_event
    yield gauge(
        "events_oldest_pending_seconds",
        "The age of the oldest event that waits to be delivered, 0 without one",
        max((now - waiting).total_seconds(), 0.0) if waiting else 0.0,
    )
    if totals.verified_at is not None:
        yield gauge(
            "last_verify_timestamp_seconds", "When verify last read the books", _timestamp(totals.verified_at)
        )
        yield gauge("last_verify_discrepancies", "Discrepancies that it found", totals.discrepancies)


def _durations(totals: Totals) -> Metric:
    counts = [sum(total.within[place] for total in totals.runs) for place in range(len(DURATION_BUCKETS))]
    buckets: list[tuple[str, float]] = [
        (str(float(bound)), float(count)) for bound, count in zip(DURATION_BUCKETS, counts, strict=True)
    ]
    buckets.append(("+Inf", float(sum(total.runs for total in totals.runs))))
    return HistogramMetricFamily(
        f"{PREFIX}run_duration_seconds",
        "How long runs took",
        buckets=buckets,
        sum_value=sum(total.duration_seconds for total in totals.runs),
    )


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge of one sample."""
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value=float(value))


def one_of(name: str, text: str, label: str, values: Iterable[str], current: str | None) -> Metric:
    """Return a gauge for each of some values: 1 for the current one, 0 for the others."""
    metric = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=[label])
    for value in values:
        metric.add_metric([str(value)], float(value == current))
    return metric


def _ended(run: RunRecord) -> datetime:
    return run.finished_at or run.started_at


def _timestamp(at: datetime) -> float:
    return at.timestamp()
