"""`prices` on the command line, and corrections of the past: what is shown, posted, not posted, and never twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.daemons import held_lease
from tests.fleet import Fleet, instant

from containerstacks_billing.cli import app
from containerstacks_billing.errors import LeaseNotObtained, WorkFailed
from containerstacks_billing.pricing import corrections
from containerstacks_billing.pricing import versions as prices
from containerstacks_billing.pricing.model import Correction, OrganizationDifference, Price

MARCH = "2026-03-01T"


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def command(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """Run `prices` on the fleet's database, away from any .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", fleet.conninfo)
    return lambda *arguments: CliRunner().invoke(app, ["prices", *arguments])


def draft(fleet: Fleet, plan: UUID, base: str, at: str) -> Correction:
    (found,) = prices.find_plans(fleet.conn, str(plan))
    correction = corrections.draft(fleet.conn, found, Price(Decimal(base), Decimal(0)), instant(at))
    assert correction is not None
    return correction


def correct(fleet: Fleet, plan: UUID, base: str, at: str, **options: Any) -> list[OrganizationDifference]:
    """Correct, prove the books, and return what was not posted."""
    correction = draft(fleet, plan, base, at)
    how: dict[str, Any] = {"holder": "test", "by": "tester", "reason": "test", "wait_seconds": 0} | options
    _, short = corrections.correct(fleet.conninfo, correction, "USD", **how)
    prove(fleet)
    return short


def prove(fleet: Fleet) -> None:
    """Per wallet: billed charges + adjustments = debits + carry, and balance = opening + entries, not below zero."""
    for row in fleet.rows(
        """
        select balance, billing_carry as carry, billing_opening as opening,
            (select coalesce(sum(total_amount), 0) from vps_billing_cycles
             where organization_id = w.organization_id and run_id is not null and status = 'billed') as billed,
            (select coalesce(sum(amount), 0) from billing_adjustments where organization_id = w.organization_id) as adjusted,
            (select coalesce(sum(amount), 0) from payment_transactions
             where organization_id = w.organization_id and status = 'completed') as entries,
            (select coalesce(-sum(amount), 0) from payment_transactions
             where organization_id = w.organization_id and payment_provider = 'internal') as debits
        from wallets w
        """
    ):
        assert row.billed + row.adjusted == row.debits + row.carry
        assert row.balance == row.opening + row.entries
        assert Decimal(0) <= row.balance
        assert Decimal(0) <= row.carry < Decimal("0.01")


def entries(fleet: Fleet, organization: UUID) -> list[tuple[str, str, str]]:
    """What corrections wrote into the ledger: amount, method, provider_transaction_id."""
    rows = fleet.rows(
        "select * from payment_transactions where organization_id = %s and provider_transaction_id like 'billing-adj%%'"
        " order by amount",
        organization,
    )
    return [(str(r.amount), r.payment_method, r.provider_transaction_id) for r in rows]


def test_a_correction_gives_back_what_was_too_much(fleet: Fleet) -> None:
    """Six hours at ten cents; from 02:00 it should have been one cent: 36 cents come back as one credit."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.hours(4)
    fleet.bill()
    fleet.hours(2)
    fleet.bill()
    assert [] == correct(fleet, plan, "7.30", "2026-03-01 02:00")

    assert [
        ("01 02:00", "01 04:00", "0.1", "0.01", "-0.18"),
        ("01 04:00", "01 06:00", "0.1", "0.01", "-0.18"),
    ] == fleet.adjustments()
    assert [("0.36", "manual_adjustment", "billing-adjustment-1")] == entries(fleet, organization)
    assert (Decimal("9.76"), Decimal(0)) == fleet.balance(organization)
    text = fleet.rows(
        "select description from payment_transactions where payment_method = 'manual_adjustment'"
    )[0]
    assert text.description == "VPS Price Correction - plan 2 - 1 instance (4h from 2026-03-01 02:00 UTC)"


def test_a_correction_reaches_to_the_next_recorded_price_and_its_price_goes_on(fleet: Fleet) -> None:
    """The second price from 03:00 is not touched; without one, hours after the correction cost the corrected price."""
    organization, first, last = fleet.organization("10.00"), fleet.plan("7.30"), fleet.plan("7.30")
    one, two = fleet.instance(organization, first), fleet.instance(organization, last)
    fleet.hours(3)
    fleet.reprice(first, "14.60")
    fleet.hours(1)
    fleet.bill()
    correct(fleet, first, "21.90", "2026-03-01 01:00")
    correct(fleet, last, "21.90", "2026-03-01 01:00")
    fleet.hours(1)
    fleet.bill()

    assert ("01 04:00", "01 05:00", "0.02", "billed") == fleet.charges(one)[-1]
    assert ("01 04:00", "01 05:00", "0.03", "billed") == fleet.charges(two)[-1]
    assert [("01 01:00", "01 03:00"), ("01 01:00", "01 04:00")] == sorted(
        row[:2] for row in fleet.adjustments()
    )
    shown = {row.id: str(row.base_price) for row in fleet.rows("select id, base_price from vps_plans")}
    assert {first: "14.60", last: "21.90"} == shown
    prove(fleet)


def test_only_hours_that_start_in_the_span_are_adjusted_and_fractions_exactly(fleet: Fleet) -> None:
    """Hours start at 00:00, 01:00, 02:00 and the last half hour; a correction from 00:20 leaves the first alone."""
    organization, plan = fleet.organization("10.00"), fleet.plan("10.00")
    web = fleet.instance(organization, plan)
    fleet.hours(2.5)
    fleet.delete(web)
    fleet.bill()
    correct(fleet, plan, "11.00", "2026-03-01 00:20")

    # 0.01369863 and 0.01506849 an hour: 1.5 hours are 0.020547945 and 0.022602735, each rounded half up.
    assert [("01 01:00", "01 02:30", "0.01369863", "0.01506849", "0.00205479")] == fleet.adjustments()
    assert [] == entries(fleet, organization)
    assert (Decimal("9.97"), Decimal("0.00630137")) == fleet.balance(organization)


def test_a_credit_below_a_cent_gives_the_cent_and_carries_the_rest(fleet: Fleet) -> None:
    """Nothing is carried and 0.0001 comes back: one cent is credited, 0.0099 is carried."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    correct(fleet, plan, "7.23", "2026-03-01 00:00")

    assert [("0.01", "manual_adjustment", "billing-adjustment-1")] == entries(fleet, organization)
    assert (Decimal("10.00"), Decimal("0.00990411")) == fleet.balance(organization)


def test_a_wallet_that_cannot_pay_pays_after_its_top_up_and_once(fleet: Fleet) -> None:
    """Two charges became dearer by nine cents each; the wallet holds ten: one is posted, the other after a top-up."""
    organization, plan = fleet.organization("0.12"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    for _ in range(2):
        fleet.hours(1)
        fleet.bill()
    (short,) = correct(fleet, plan, "73.00", "2026-03-01 00:00")
    held = fleet.balance(organization)
    (again,) = correct(fleet, plan, "73.00", "2026-03-01 00:00")
    fleet.top_up(organization, "1.00")
    paid = correct(fleet, plan, "73.00", "2026-03-01 00:00")
    once = correct(fleet, plan, "73.00", "2026-03-01 00:00")

    assert (1, Decimal("0.09"), Decimal("0.01")) == (short.unposted_charges, short.unposted_amount, held[0])
    assert (1, [], []) == (again.unposted_charges, paid, once)
    assert [("-0.09", "wallet_debit", "billing-adjustment-1")] * 2 == entries(fleet, organization)
    assert (Decimal("0.92"), Decimal(0)) == fleet.balance(organization)
    (record,) = fleet.rows(
        "select unposted_charges, unposted_amount, decided_by from billing_price_corrections"
    )
    assert (0, Decimal(0), "tester") == record


def test_what_was_not_posted_is_corrected_by_the_next_correction(fleet: Fleet) -> None:
    """Never posted at ten cents an hour, now two: the difference is taken from the one cent that was charged."""
    organization, plan = fleet.organization("0.03"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(2)
    fleet.bill()
    assert 1 == len(correct(fleet, plan, "73.00", "2026-03-01 00:00"))
    fleet.top_up(organization, "1.00")
    correct(fleet, plan, "14.60", "2026-03-01 01:00")
    correct(fleet, plan, "73.00", "2026-03-01 00:00")

    assert [
        ("01 00:00", "01 01:00", "0.01", "0.1", "0.09"),
        ("01 01:00", "01 02:00", "0.01", "0.02", "0.01"),
    ] == fleet.adjustments()
    assert (Decimal("0.91"), Decimal(0)) == fleet.balance(organization)


def test_corrections_of_corrections_start_from_what_was_posted(fleet: Fleet) -> None:
    """Ten cents, then five from 00:00, then two from 02:00, then ten again from 00:00 until 02:00."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.hours(4)
    fleet.bill()
    correct(fleet, plan, "36.50", "2026-03-01 00:00")
    correct(fleet, plan, "14.60", "2026-03-01 02:00")
    correct(fleet, plan, "73.00", "2026-03-01 00:00")

    assert [
        ("01 00:00", "01 04:00", "0.1", "0.05", "-0.2"),
        ("01 00:00", "01 02:00", "0.05", "0.1", "0.1"),
        ("01 02:00", "01 04:00", "0.05", "0.02", "-0.06"),
    ] == [fleet.adjustments()[index] for index in (0, 1, 2)]
    assert (Decimal("9.76"), Decimal(0)) == fleet.balance(organization)


def test_past_due_hours_are_rated_anew_where_they_stand(fleet: Fleet) -> None:
    """An empty wallet owes four hours at ten cents; the middle two become one cent; a top-up of 22 cents pays all."""
    organization, plan = fleet.organization("0.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.hours(4)
    fleet.bill()
    correct(fleet, plan, "73.01", "2026-03-01 03:00")
    correct(fleet, plan, "7.30", "2026-03-01 01:00")
    owed = fleet.charges()
    fleet.top_up(organization, "0.23")
    fleet.bill()

    assert [
        ("01 00:00", "01 01:00", "0.1", "failed"),
        ("01 01:00", "01 03:00", "0.02", "failed"),
        ("01 03:00", "01 04:00", "0.1000137", "failed"),
    ] == owed
    assert [] == fleet.adjustments()
    assert {"billed"} == {status for *_, status in fleet.charges()}
    assert (Decimal("0.01"), Decimal("0.0000137")) == fleet.balance(organization)
    prove(fleet)


def test_a_debt_that_costs_nothing_any_more_is_settled(fleet: Fleet) -> None:
    """A plan that should have been free leaves neither debt nor mark, though the wallet stays empty."""
    organization, plan = fleet.organization("0.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.hours(2)
    fleet.bill()
    correct(fleet, plan, "0", "2026-03-01 00:00")

    assert [("01 00:00", "01 02:00", "0", "billed")] == fleet.charges()
    assert [None] == [row.past_due_since for row in fleet.rows("select past_due_since from wallets")]


def test_other_plans_rates_and_the_hosts_own_rows_are_left_alone(fleet: Fleet) -> None:
    """Only charges of the plan at the replaced price count, by whatever HOURS_PER_MONTH they were rated."""
    organization, plan, other = fleet.organization("10.00"), fleet.plan("73.00"), fleet.plan("73.00")
    web = fleet.instance(organization, plan)
    fleet.instance(organization, other)
    fleet.conn.execute(
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status) values (%s, %s, '2026-03-01 00:00Z', '2026-03-01 01:00Z', 0.1, 0.1, 'billed')",
        (web, organization),
    )
    fleet.hours(1)
    fleet.bill()
    fleet.terms = replace(fleet.terms, hours_per_month=365)
    fleet.hours(1)
    fleet.bill()
    correct(fleet, plan, "36.50", "2026-03-01 00:00")

    assert [
        ("01 00:00", "01 01:00", "0.1", "0.05", "-0.05"),
        ("01 01:00", "01 02:00", "0.2", "0.1", "-0.1"),
    ] == fleet.adjustments()


def test_backups_keep_their_price_in_a_correction(fleet: Fleet) -> None:
    """Two cents for backups stay beside the corrected price."""
    fleet.conn.execute("alter table vps_plans add column backup_price_hourly numeric(10,4)")
    fleet.conn.execute("alter table vps_instances add column backup_frequency varchar(20)")
    fleet.conn.execute("select billing_adapt_to_host()")
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    fleet.conn.execute("update vps_plans set backup_price_hourly = 0.02")
    fleet.instance(organization, plan)
    backed = fleet.instance(organization, plan)
    fleet.set(backed, backup_frequency="daily")
    fleet.hours(1)
    fleet.bill()
    correct(fleet, plan, "36.50", "2026-03-01 00:00")
    fleet.hours(1)
    fleet.bill()

    assert {("0.1", "0.05", "-0.05"), ("0.12", "0.07", "-0.05")} == {row[2:] for row in fleet.adjustments()}
    assert ["0.12", "0.07"] == [amount for _, _, amount, _ in fleet.charges(backed)]


def test_without_a_wallet_nothing_is_posted_and_it_is_said(fleet: Fleet) -> None:
    """The organization was deleted with its wallet; its charges stay as they are."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.conn.execute("delete from organizations")
    (short,) = correct(fleet, plan, "7.30", "2026-03-01 00:00")

    assert (None, Decimal("-0.09")) == (short.balance, short.unposted_amount)
    assert [] == fleet.adjustments()


_KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from decimal import Decimal
import psycopg
from containerstacks_billing.pricing.model import Price
from containerstacks_billing.pricing import corrections, versions as prices

conninfo, survive = sys.argv[1], int(sys.argv[2])
with psycopg.connect(conninfo, autocommit=True) as conn:
    (plan,) = prices.find_plans(conn, None)
    found = corrections.draft(conn, plan, Price(Decimal("7.30"), Decimal(0)), datetime(2026, 3, 1, tzinfo=UTC))
done = []
def posted(number):
    done.append(number)
    if len(done) == survive:
        os.kill(os.getpid(), signal.SIGKILL)
corrections.correct(conninfo, found, "USD", holder="killed", by="killed", reason=None, at_once=1, posted=posted)
"""


def test_a_correction_killed_between_organizations_is_finished_once(fleet: Fleet) -> None:
    """Killed after the first and, given again, after the second of four; runs bill in between; each is corrected once."""
    plan = fleet.plan("73.00")
    organizations = [fleet.organization("10.00") for _ in range(4)]
    for organization in organizations:
        fleet.instance(organization, plan)
    fleet.hours(2)
    fleet.bill()
    done = []
    for survive in (1, 2):
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, fleet.conninfo, str(survive)],
            capture_output=True,
            timeout=180,
            check=False,
        )
        assert -signal.SIGKILL == killed.returncode, killed.stderr
        done.append(len(fleet.adjustments()))
        fleet.conn.execute("update billing_leases set expires_at = '-infinity'")
        fleet.hours(1)
        fleet.bill()
        prove(fleet)
    assert [] == correct(fleet, plan, "7.30", "2026-03-01 00:00")
    correct(fleet, plan, "7.30", "2026-03-01 00:00")

    assert [1, 2] == done
    assert [("01 00:00", "01 02:00", "0.1", "0.01", "-0.18")] * 4 == fleet.adjustments()
    assert {(Decimal("9.96"), Decimal(0))} == {fleet.balance(one) for one in organizations}
    assert [1] == [row.n for row in fleet.rows("select count(*) as n from billing_price_corrections")]


def test_a_correction_waits_for_whoever_bills(fleet: Fleet) -> None:
    """While another process holds the lease nothing is rewritten."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    with held_lease(fleet.conninfo, "other"), pytest.raises(LeaseNotObtained, match="other is billing"):
        correct(fleet, plan, "7.30", "2026-03-01 00:00")
    assert [] == fleet.rows("select from billing_price_corrections")


def test_a_price_that_changed_after_the_preview_stops_the_correction(fleet: Fleet) -> None:
    """The host repriced between looking and posting: what was shown is not what would be posted."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    seen = draft(fleet, plan, "7.30", "2026-03-01 00:00")
    fleet.reprice(plan, "14.60")
    with pytest.raises(WorkFailed, match="was changed since"):
        corrections.correct(fleet.conninfo, seen, "USD", holder="test", by="tester", reason=None)
    assert [] == fleet.adjustments()


def test_the_list_shows_versions_in_80_columns(fleet: Fleet, command: Any) -> None:
    """From always, an announced one marked, the hourly rate, and the plan found by id, provider's id or name."""
    plan = fleet.plan("5.00", "1.00", provider_plan_id="vc2-1c-1gb")
    announced = command(
        "set",
        "vc2-1c-1gb",
        "--base",
        "6.5",
        "--markup",
        "1",
        "--from",
        f"{MARCH}06:00+01:00",
        "--reason",
        "dearer",
    )
    assert announced.exit_code == 0, announced.output
    assert "Announced: plan 1 costs 6.50 + 1.00 a month" in announced.stdout
    for name in (str(plan), "vc2-1c-1gb", "plan 1"):
        shown: Result = command("list", name)
        assert shown.exit_code == 0
        lines = shown.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert ["always", "2026-03-01", "05:00", "5.00", "1.00", "0.00821918"] == lines[4].split()
        assert ["2026-03-01", "05:00", "*", "always", "6.50", "1.00", "0.01027397"] == lines[5].split()
        assert "* announced" in shown.stdout
    (document,) = json.loads(command("list", "--json").stdout)["plans"]
    first, second = document["versions"]
    assert (None, "2026-03-01T05:00:00Z", "5.00", False, True) == tuple(
        first[key] for key in ("from", "until", "base", "announced", "inForce")
    )
    assert ("6.50", True, "dearer") == tuple(second[key] for key in ("base", "announced", "reason"))


REFUSED = [
    (["--base", "5.001", "--markup", "0"], "holds 2 decimals"),
    (["--base", "100000000", "--markup", "0"], "out of range"),
    (["--base", "-1", "--markup", "2"], "negative"),
    (["--base", "1", "--markup", "-2"], "negative"),
    (["--base", "NaN", "--markup", "0"], "is no amount"),
    (["--base", "five", "--markup", "0"], "is no amount"),
    (["--base", "1e999999", "--markup", "0"], "is no amount"),
    *(
        (["--base", text, "--markup", "0"], f"{text!r} is no amount")
        for text in ("1_000", "1e3", " 5 ", "+5", ".5", "5.", "٣")
    ),
    (["--base", "5", "--markup", "Infinity"], "'Infinity' is no amount"),
    (["--base", "5", "--markup", "0", "--from", "tomorrow"], "is no instant"),
    (["--base", "5", "--markup", "0", "--from", "0001-01-01T00:00+14:00"], "is no instant"),
    (["--base", "5", "--markup", "0", "--from", "2026-02-28T00:00"], "--correct"),
    (["--base", "5", "--markup", "0", "--correct"], "needs the instant"),
    (["--base", "5", "--markup", "0", "--from", "2026-04-01", "--correct"], "lies in the future"),
    (["--base", "5", "--markup", "0", "--yes"], "belongs to --correct"),
    (
        ["--base", "5", "--markup", "0", "--correct", "--from", "2026-02-28", "--dry-run", "--yes"],
        "exclude each other",
    ),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[" ".join(options) for options, _ in REFUSED])
def test_what_makes_no_sense_is_a_usage_error(
    fleet: Fleet, command: Any, options: list[str], words: str
) -> None:
    """Each is refused in words, with 2, and no price changes."""
    fleet.plan("5.00")
    refused: Result = command("set", "plan 1", *options)
    assert refused.exit_code == 2, refused.output
    assert words in " ".join(refused.stderr.replace("│", "").split())
    assert 1 == len(fleet.rows("select from plan_price_versions"))


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), (signal.SIGINT, 130), ("y\n", 0)])
def test_a_correction_is_asked_for(
    fleet: Fleet, on_terminal: Any, answer: str | signal.Signals, code: int
) -> None:
    """Without a billed hour there is a price to record and nothing to post; n and Ctrl-C leave all as it was."""
    plan = fleet.plan("7.30")
    fleet.hours(2)
    ended, shown = on_terminal(
        *(
            "prices",
            "set",
            str(plan),
            "--base",
            "5",
            "--markup",
            "0",
            "--from",
            f"{MARCH}01:00Z",
            "--correct",
        ),
        environment={"DATABASE_URL": fleet.conninfo},
        answer=answer,
    )
    recorded = fleet.rows("select from billing_price_corrections")

    assert code == ended, shown
    assert "there is nothing to adjust.\n\nRecord this price? [y/N]: " in shown
    assert ("Nothing was changed." in shown, len(recorded)) == ((True, 0) if code else (False, 1))
    assert "Abort" not in shown


def test_an_unknown_and_an_ambiguous_plan_are_named(fleet: Fleet, command: Any) -> None:
    """Two plans share a provider_plan_id: the ids to choose from are in the message."""
    fleet.plan("5.00", provider_plan_id="small")
    fleet.plan("5.00", provider_plan_id="small")
    assert "no plan has" in command("list", "large").stderr
    ambiguous: Result = command("list", "small")
    assert (2, True) == (ambiguous.exit_code, "names 2 plans" in " ".join(ambiguous.stderr.split()))


def test_a_wider_column_takes_more_decimals(fleet: Fleet, command: Any) -> None:
    """The successor's four decimals are read from the column; a naive instant is UTC, and that is said."""
    plan = fleet.plan("5.00")
    fleet.conn.execute("alter table vps_plans alter column base_price type numeric(12,4)")
    done: Result = command(
        "set", str(plan), "--base", "5.0125", "--markup", "0", "--from", "2026-03-02 00:00"
    )
    assert (0, True) == (done.exit_code, "is taken as UTC" in done.stderr), done.output
    now: Result = command("set", str(plan), "--base", "5.0625", "--markup", "0", "--json")
    assert ("5.0625", True) == (json.loads(now.stdout)["version"]["base"], json.loads(now.stdout)["changed"])
    assert "Nothing to do" in command("set", str(plan), "--base", "5.0625", "--markup", "0").stdout


def test_a_correction_is_shown_first_and_posted_with_yes(fleet: Fleet, command: Any) -> None:
    """A table per organization with its total, the past due and what is not posted; then nothing is left to do."""
    rich, poor, broke = (
        fleet.organization(balance, name=name)
        for balance, name in (("9.00", "Rich"), ("0.03", "Poor"), ("0", "Broke"))
    )
    plan = fleet.plan("7.30")
    for organization in (rich, poor, broke):
        fleet.instance(organization, plan)
    fleet.hours(3)
    fleet.bill()
    order = ["set", str(plan), "--base", "73.00", "--markup", "0", "--from", f"{MARCH}01:00Z", "--correct"]
    shown: Result = command(*order, "--dry-run")
    refused: Result = command(*order)
    assert [] == fleet.adjustments()
    posted: Result = command(*order, "--yes", "--reason", "typing error")
    repeated: Result = command(*order, "--yes", "--json")
    assert repeated.exit_code == 0, repeated.output
    again = json.loads(repeated.stdout)

    assert (0, 2, 0) == (shown.exit_code, refused.exit_code, posted.exit_code), posted.output
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert ["Rich", "1", "2", "0.02", "0.20", "+0.18"] in [line.split() for line in lines]
    assert ["Total", "2", "4", "0.04", "0.40", "+0.36"] in [line.split() for line in lines]
    assert "2 hours of 1 instance are rated anew,\n  0.20 USD instead of 0.02; no money" in shown.stdout
    assert "not posted: 0.18 of Poor: wallet holds 0.00" in shown.stdout
    assert "Nothing was changed." in shown.stdout
    assert "needs --yes" in " ".join(refused.stderr.split())
    assert "1 adjustment was posted." in posted.stdout
    assert "not posted: 0.18 of Poor: wallet holds 0.00" in posted.stdout
    assert ([str(poor)], True, 0) == (
        [one["organizationId"] for one in again["unposted"]],
        again["posted"],
        again["adjustments"],
    )
    assert (Decimal("8.79"), Decimal(0)) == fleet.balance(rich)
    prove(fleet)
