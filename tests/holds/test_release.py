"""Decisions about held hours: what is approved is charged once, what is waived never, and the books stay right."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.cli import app
from containerstacks_billing.holds import release as releasing
from containerstacks_billing.holds.model import Decision, ReleaseDecision, ReleaseResult
from containerstacks_billing.holds.release import release
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Iterator[Fleet]:
    """A fleet whose books are verified at the end of the test, after any decision."""
    fleet = Fleet(conn)
    yield fleet
    assert () == verify(fleet.conninfo).discrepancies


def decide(fleet: Fleet, decision: str, kept_hours: int | None = None, **changes: Any) -> ReleaseResult:
    kept = {"charge": 2**31 - 1, "waive": 0}.get(decision, kept_hours)
    order = ReleaseDecision(Decision(decision), "anna", "an outage", kept or 0, **changes)
    return release(fleet.conninfo, fleet.terms, order, "test")


def decisions(fleet: Fleet) -> list[tuple[str, bool, str | None, str | None, str, str]]:
    rows = fleet.rows(
        "select decision, segment_id > 0 as segment, to_char(waived_from at time zone 'UTC', 'DD HH24:MI') as since,"
        " to_char(waived_to at time zone 'UTC', 'DD HH24:MI') as until, decided_by, reason"
        " from billing_decisions order by id"
    )
    return [tuple(row) for row in rows]


@pytest.fixture
def outage(fleet: Fleet) -> tuple[Fleet, UUID, UUID]:
    """One instance charged for an hour, then a hundred hours without a run; its neighbour was created in between."""
    organization, plan = fleet.organization("100.00"), fleet.plan("7.30")
    web = fleet.instance(organization, plan, label="web")
    fleet.hours(1)
    fleet.bill()
    fleet.hours(90)
    fleet.instance(organization, plan)
    fleet.hours(10.5)
    fleet.bill()
    assert {web: "held"} == fleet.quarantine()
    return fleet, organization, web


def test_charged_hours_are_charged_once_by_the_next_run(outage: tuple[Fleet, UUID, UUID]) -> None:
    """A hundred hours are approved; the run an hour later charges them and the one that came since."""
    fleet, _, web = outage
    released = decide(fleet, "charge", instance=web)
    struck = fleet.quarantine()
    fleet.hours(1)
    run = fleet.bill()

    assert (1, Decimal(100), Decimal("1.00"), Decimal(0)) == (
        released.instances,
        released.hours_approved,
        released.amount_approved,
        released.hours_waived,
    )
    assert {} == struck
    assert (Outcome.COMPLETED, 2) == (run.outcome, run.instances_billed)
    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("01 01:00", "05 06:00", "1.01", "billed"),
    ] == fleet.charges(web)
    assert [("charge", False, None, None, "anna", "an outage")] == decisions(fleet)
    assert 0 == decide(fleet, "waive").instances


def test_a_cap_waives_the_oldest_hours(outage: tuple[Fleet, UUID, UUID]) -> None:
    """Of a hundred hours the last 24 are charged; the 76 before them are waived, by whom and why is kept."""
    fleet, organization, web = outage
    released = decide(fleet, "cap", 24, organization=organization)
    fleet.bill()

    assert (Decimal(24), Decimal("0.24"), Decimal(76), Decimal("0.76")) == (
        released.hours_approved,
        released.amount_approved,
        released.hours_waived,
        released.amount_waived,
    )
    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("04 05:00", "05 05:00", "0.24", "billed"),
    ] == fleet.charges(web)
    assert [("cap", False, "01 01:00", "04 05:00", "anna", "an outage")] == decisions(fleet)


def test_a_waiver_charges_nothing_and_the_next_hour_is_charged_again(
    outage: tuple[Fleet, UUID, UUID],
) -> None:
    """Everything due is waived; what follows is charged as ever."""
    fleet, _, web = outage
    released = decide(fleet, "waive")
    fleet.hours(1)
    fleet.bill()

    assert (Decimal(0), Decimal(100)) == (released.hours_approved, released.hours_waived)
    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("05 05:00", "05 06:00", "0.01", "billed"),
    ] == fleet.charges(web)


def test_a_dry_run_shows_the_same_and_changes_nothing(outage: tuple[Fleet, UUID, UUID]) -> None:
    """The preview is the decision itself, rolled back."""
    fleet, _, web = outage
    before = fleet.rows("select * from vps_instances order by id")
    shown = decide(fleet, "cap", 24, dry_run=True)

    assert (Decimal(24), Decimal(76)) == (shown.hours_approved, shown.hours_waived)
    assert before == fleet.rows("select * from vps_instances order by id")
    assert ([], {web: "held"}) == (decisions(fleet), fleet.quarantine())


@pytest.mark.parametrize(
    ("kept", "charged", "waived"),
    [
        # Closed: 60 h and 29.5 h; open: 10 h.
        (5, [("04 23:30", "05 04:30", "0.05")], [("01 01:00", "03 13:00"), ("03 13:00", "04 18:30")]),
        (10, [("04 18:30", "05 04:30", "0.1")], [("01 01:00", "03 13:00"), ("03 13:00", "04 18:30")]),
        (
            12,
            [("04 16:30", "04 18:30", "0.02"), ("04 18:30", "05 04:30", "0.1")],
            [("01 01:00", "03 13:00"), ("03 13:00", "04 16:30")],
        ),
        (
            40,
            [
                ("03 12:30", "03 13:00", "0.005"),
                ("03 13:00", "04 18:30", "0.295"),
                ("04 18:30", "05 04:30", "0.1"),
            ],
            [("01 01:00", "03 12:30")],
        ),
    ],
)
def test_a_cap_over_closed_segments_keeps_the_most_recent_hours(
    fleet: Fleet, kept: int, charged: list[tuple[str, str, str]], waived: list[tuple[str, str]]
) -> None:
    """Segments before the kept hours are waived, the one in the middle is parted, and together they tile the time."""
    organization = fleet.organization("100.00")
    small, large = fleet.plan("7.30", provider_plan_id="a"), fleet.plan("7.30", provider_plan_id="b")
    web = fleet.instance(organization, small)
    fleet.hours(1)
    fleet.bill()
    fleet.hours(60)
    fleet.set(web, plan_id=large)
    fleet.hours(29.5)
    fleet.set(web, plan_id=small)
    fleet.hours(10)
    fleet.bill()
    metered = _metered(fleet)
    released = decide(fleet, "cap", kept)
    fleet.bill()

    assert (Decimal(kept), Decimal("99.5") - kept) == (released.hours_approved, released.hours_waived)
    assert charged == [charge[:3] for charge in fleet.charges(web)[1:]]
    assert waived == [
        (since, until) for _, is_segment, since, until, *_ in decisions(fleet) if since and is_segment
    ]
    assert metered == _metered(fleet)
    assert {} == fleet.quarantine()


def _metered(fleet: Fleet) -> list[Any]:
    """The time that segments cover, as one range."""
    rows = fleet.rows(
        "select range_agg(tstzrange(started_at, ended_at))::text as covered,"
        " sum(extract(epoch from ended_at - started_at)) as seconds from billing_closed_segments()"
    )
    return [tuple(row) for row in rows]


def test_a_deleted_instance_is_decided_about_too(fleet: Fleet) -> None:
    """Its last segment is closed and nothing else is left of it."""
    organization = fleet.organization("100.00")
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(80)
    fleet.delete(web)
    fleet.hours(1)
    fleet.bill()
    assert {web: "held"} == fleet.quarantine()
    decide(fleet, "cap", 30, instance=web)
    fleet.bill()

    assert [("03 02:00", "04 08:00", "0.3", "billed")] == fleet.charges(web)


def test_an_instance_that_changes_meanwhile_is_decided_about_again(
    outage: tuple[Fleet, UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host stops it between the decision and the move of its watermark: nothing is lost and nothing counts twice."""
    fleet, _, web = outage
    one = releasing._one
    stopped: list[bool] = []

    def stop_it_first(connection: Any, name: str, values: dict[str, Any]) -> tuple[Any, ...]:
        row = one(connection, name, values)
        if name == "decide" and not stopped:
            stopped.append(True)
            fleet.set(web, status="stopped")
        return row

    monkeypatch.setattr(releasing, "_one", stop_it_first)
    released = decide(fleet, "waive")
    fleet.hours(1)
    fleet.bill()

    assert Decimal("100.5") == released.hours_waived
    assert 1 == len(decisions(fleet))
    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges(web)


def test_an_instance_without_a_price_can_be_waived(fleet: Fleet) -> None:
    """What it would have cost is not known, and said so."""
    web = fleet.instance(fleet.organization("1.00"), "no-such-plan")
    fleet.hours(100)
    fleet.bill()
    released = decide(fleet, "waive", instance=web)

    assert (1, 1, Decimal(100)) == (released.instances, released.unpriced_instances, released.hours_waived)


def test_hours_that_were_approved_do_not_approve_later_ones(outage: tuple[Fleet, UUID, UUID]) -> None:
    """A second outage waits for a decision of its own."""
    fleet, _, web = outage
    decide(fleet, "charge")
    fleet.hours(90)
    fleet.bill()

    assert {web: "held"}.items() <= fleet.quarantine().items()


@pytest.fixture
def command(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., Result]:
    """Run the command on the fleet's database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", fleet.conninfo)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_the_command_decides_and_tells(
    outage: tuple[Fleet, UUID, UUID], command: Callable[..., Result]
) -> None:
    """List, preview, decide; each in words and as a document."""
    _, _, web = outage
    listed = command("quarantine")
    assert "held" in listed.stdout
    assert "100 hours due" in listed.stdout
    assert "decide with containerstacks-billing release" in listed.stdout
    assert str(web) == json.loads(command("quarantine", "--json").stdout)["instances"][0]["instanceId"]

    preview = command("release", "--all", "--cap", "24", "--dry-run")
    assert "charge 24 h (0.24 USD); waive 76 h (0.76 USD)" in preview.stdout
    assert "Nothing was changed." in preview.stdout
    document = json.loads(
        command("release", "--instance", str(web), "--cap", "24", "--by", "anna", "--json", "--yes").stdout
    )
    assert ("cap", "24.00", "0.24", "0.76", "anna", 1) == (
        document["decision"],
        document["hoursApproved"],
        document["amountApproved"],
        document["amountWaived"],
        document["decidedBy"],
        document["instances"],
    )
    again = command("release", "--all", "--charge")  # nothing to ask about
    assert (0, "No such instance is held; there is nothing to decide.\n") == (again.exit_code, again.stdout)


def test_the_command_releases_the_brake(fleet: Fleet, command: Callable[..., Result]) -> None:
    """It shows what the held run saw, keeps who and why, and says when there is nothing to release."""
    nothing = command("release")
    assert (0, "No run is held; there is nothing to release.\n") == (nothing.exit_code, nothing.stdout)
    fleet.instance(fleet.organization("10.00"), plan := fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    fleet.reprice(plan, "73.00")
    fleet.hours(1)
    held = fleet.bill()
    fleet.bill()

    looked = command("release", "--dry-run")
    assert "the next run would charge 1 instance for 1 hour: 0.10 USD." in " ".join(looked.stdout.split())
    assert looked.stdout.endswith("Nothing was changed.\n")
    document = json.loads(command("release", "--dry-run", "--json").stdout)
    assert {"instances": 1, "hours": "1.00", "amount": "0.10"} == document["wouldCharge"]
    assert not document["released"]
    unanswered = [command("release", *more) for more in ((), ("--json",))]
    assert [2, 2] == [one.exit_code for one in unanswered]
    assert "releasing a held run needs --yes here" in " ".join(unanswered[0].stderr.split())
    assert Outcome.HELD is fleet.bill().outcome
    shown = command("release", "--by", "anna", "--reason", "the price is right", "--yes")
    assert f"Run {held.run_id} was held: plan" in shown.stdout
    assert "costs 0.10000000 per hour" in " ".join(shown.stdout.split())
    assert [("anna", "the price is right")] * 3 == [
        tuple(row)
        for row in fleet.rows("select released_by, release_reason from billing_runs where outcome = 'held'")
    ]
    assert "released already" in command("release").stdout
    assert Outcome.COMPLETED is fleet.bill().outcome


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_nothing_is_decided_where_nobody_can_answer(
    outage: tuple[Fleet, UUID, UUID], command: Callable[..., Result], more: tuple[str, ...]
) -> None:
    """Without a terminal, and with --json, it takes --yes; the refusal is a usage error."""
    fleet, *_ = outage
    refused = command("release", "--all", "--charge", *more)
    assert 2 == refused.exit_code
    assert "deciding needs --yes here; --dry-run only shows it." in " ".join(refused.stderr.split())
    assert [] == decisions(fleet)
    assert 0 == command("release", "--all", "--charge", "--yes", *more).exit_code
    assert 1 == len(decisions(fleet))


@pytest.mark.parametrize(
    ("answer", "code"), [("n\n", 1), ("\n", 1), ("\x04", 1), (signal.SIGINT, 130), ("y\n", 0)]
)
def test_a_question_is_answered(
    outage: tuple[Fleet, UUID, UUID],
    on_terminal: Callable[..., tuple[int, str]],
    answer: str | signal.Signals,
    code: int,
) -> None:
    """No decides nothing and exits 1, Ctrl-C 130, and both say so; the question itself claims nothing."""
    fleet, *_ = outage
    ended, shown = on_terminal(
        "release", "--all", "--charge", environment={"DATABASE_URL": fleet.conninfo}, answer=answer
    )
    before, _, after = shown.partition("Decide so?")

    assert code == ended, shown
    assert "1 instance\nTo charge: 100 hours, 1.00 USD\n" in before
    assert "Nothing was changed." not in before
    assert ("Nothing was changed." in after, "Decided." in after) == (bool(code), not code)
    assert "Abort" not in shown
    assert (0 if code else 1) == len(decisions(fleet))


def test_a_preview_names_those_that_are_not_listed_as_held(
    fleet: Fleet, command: Callable[..., Result]
) -> None:
    """Every instance with too many hours due is held, also one that waits for a repair or has not met a run yet."""
    organization = fleet.organization("100.00")
    broken = fleet.instance(organization, "no-such-plan", label="broken")
    fleet.instance(organization, plan := fleet.plan("7.30"), label="web")
    fleet.hours(80)
    fleet.bill()
    fleet.instance(organization, plan, label="late")
    fleet.hours(75)
    preview = command("release", "--all", "--waive", "--dry-run").stdout
    document = json.loads(command("release", "--all", "--waive", "--dry-run", "--json").stdout)

    assert preview.count("  not listed as held: ") == 2
    assert "  not listed as held: no plan\n" in preview
    assert (
        "\n3 instances\nTo charge: 0 hours, 0.00 USD\nWaived:    385 hours, 2.30 USD\n"
        "1 of them has no usable price at present.\n"
        "2 of them are not listed as held: "
    ) in preview
    assert {"no plan": 1, "not quarantined by the last run": 1} == document["otherReasons"]
    assert {str(broken): "no plan"}.items() <= {
        one["instanceId"]: one["setAsideFor"] for one in document["listed"]
    }.items()


def test_an_organization_that_nobody_knows_is_a_usage_error(
    fleet: Fleet, command: Callable[..., Result]
) -> None:
    """A mistyped id would be told that nothing is held; one that is known is."""
    known = command("release", "--organization", str(fleet.organization()), "--waive", "--yes")
    for more in (("--yes",), ("--dry-run",), ("--json",), ()):
        unknown = command("release", "--organization", str(uuid4()), "--waive", *more)
        assert 2 == unknown.exit_code
        assert "there is no organization" in unknown.stderr
    assert (0, "No such instance is held; there is nothing to decide.\n") == (known.exit_code, known.stdout)
    for what, words in (
        ("--organization", "no id of an organization"),
        ("--instance", "no id of an instance"),
    ):
        typed = command("release", what, "xyz", "--waive")
        assert (2, True) == (typed.exit_code, f"'xyz' is {words}." in " ".join(typed.stderr.split()))


def test_hours_are_rounded_for_people_and_exact_for_programs(
    fleet: Fleet, command: Callable[..., Result]
) -> None:
    """A segment that ended at a fraction of a second has hours of sixteen digits."""
    web = fleet.instance(fleet.organization("9.00"), fleet.plan("7.30"))
    fleet.at("2026-03-05 04:00:00.601")
    fleet.delete(web)
    fleet.hours(1)
    fleet.bill()
    listed = command("quarantine").stdout
    document = json.loads(command("quarantine", "--json").stdout)

    assert ", 100.0002 hours due\n" in listed
    assert document["instances"][0]["hoursDue"].startswith("100.00016694")
    assert "waive 100.0002 h" in command("release", "--all", "--waive", "--dry-run").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--charge",),
        ("--all",),
        ("--all", "--charge", "--waive"),
        ("--all", "--instance", str(uuid4()), "--waive"),
    ],
)
def test_half_a_decision_is_a_usage_error(command: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    """Neither what nor which is guessed."""
    assert command("release", *arguments).exit_code == 2
