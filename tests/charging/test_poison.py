"""Damaged data of every kind: quarantined with a reason, all others billed, charged exactly once after its repair.

Each kind is a row: what happens to the data, what the quarantine says, what the person does who reads it. The schema is
the successor's, whose wider types let more nonsense in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.fleet import Fleet, instant

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.schema.files import delivered_schema
from containerstacks_billing.verification.verify import verify

_WIDER = """
    alter table vps_plans alter base_price type numeric, alter markup_price type numeric,
        alter base_price drop not null, alter markup_price drop not null,
        add backup_price_hourly numeric default 0, add backup_upcharge_hourly numeric default 0;
    alter table vps_instances alter plan_id drop not null, alter label type text, alter status drop not null,
        add backup_frequency varchar(20) default 'none';
    alter table wallets alter balance type numeric, alter currency type varchar(10);
    select billing_adapt_to_host();
"""
_LAST_CHARGE = "update vps_instances set last_billed_at = '2026-03-01 01:00+00' where id = %(victim)s"


@dataclass(frozen=True)
class Kind:
    """A kind of poison: statements that bring it about, reason and a part of the detail, statements that repair it."""

    name: str
    poison: str
    reason: str
    detail: str
    repair: str


def price(name: str, assignment: str) -> Kind:
    return Kind(
        f"price: {name}",
        f"update vps_plans set {assignment} where id = %(plan)s",
        "unusable price",
        "correct vps_plans",
        "update vps_plans set base_price = 7.30, markup_price = 0, backup_price_hourly = 0, backup_upcharge_hourly = 0"
        " where id = %(plan)s",
    )


def plan_id(name: str, literal: str, detail: str) -> Kind:
    return Kind(
        f"plan_id: {name}",
        f"update vps_instances set plan_id = {literal} where id = %(victim)s",
        "no plan",
        detail,
        "update vps_instances set plan_id = %(plan)s::text where id = %(victim)s",
    )


def balance(name: str, literal: str) -> Kind:
    return Kind(
        f"balance: {name}",
        f"update wallets set balance = {literal} where organization_id = %(other)s",
        "unusable balance",
        "correct wallets.balance",
        "update wallets set balance = 10 where organization_id = %(other)s",
    )


def wallet(name: str, poison: str, repair: str, detail: str = "has no wallet in USD") -> Kind:
    return Kind(f"wallet: {name}", poison, "no wallet", detail, repair)


def watermark(name: str, assignment: str, reason: str, detail: str) -> Kind:
    return Kind(
        f"watermark: {name}",
        f"update vps_instances set {assignment} where id = %(victim)s",
        reason,
        detail,
        _LAST_CHARGE,
    )


_BY_PROVIDER_NAME = (
    "update vps_instances set plan_id = (select provider_plan_id from vps_plans where id = %(plan)s)"
    " where id = %(victim)s;; "
)
_OTHER_CURRENCY = "update wallets set currency = 'USD' where organization_id = %(other)s"
_INFINITE = ("infinite watermark", "set vps_instances.last_billed_at to 2026-03-01 01:00:00+00")
_FUTURE = ("future watermark", "set vps_instances.last_billed_at to 2026-03-01 01:00:00+00")

KINDS = [
    price("NaN", "base_price = 'NaN'"),
    price("negative", "base_price = -1"),
    price("missing", "base_price = null"),
    price("huge", "base_price = 1e30"),
    price("infinite", "base_price = 'Infinity'"),
    price("infinitely negative", "base_price = '-Infinity'"),
    price("markup NaN", "markup_price = 'NaN'"),
    price("markup infinite", "markup_price = 'Infinity'"),
    price("markup below the base price", "markup_price = -100"),
    price("backups NaN", "backup_price_hourly = 'NaN'"),
    price("backups negative", "backup_upcharge_hourly = -1"),
    price("backups infinite", "backup_price_hourly = 'Infinity'"),
    plan_id("of nothing", "'no-such-plan'", "there is no plan 'no-such-plan': correct its plan_id"),
    plan_id("null", "null", "there is no plan"),
    plan_id("empty", "''", "there is no plan without a name"),
    plan_id("white space", "'   '", "there is no plan without a name"),
    plan_id("white space around", "' ' || %(plan)s || ' '", "there is no plan ' "),
    plan_id("upper case", "upper(%(plan)s::text)", "there is no plan '"),
    plan_id("a UUID of nothing", "gen_random_uuid()::text", "there is no plan '"),
    plan_id("markup", "'<script>alert(1)</script>'", "there is no plan '<script>"),
    plan_id("SQL", "'''; drop table wallets; --'", "there is no plan '''; drop"),
    plan_id("control characters", "E'\\x01\\x1b[31m\\r\\n'", "there is no plan '\x01"),
    plan_id("escapes of NUL", "'\\u0000%%00\\0'", "there is no plan"),
    plan_id("of 255 characters", "repeat('x', 255)", "there is no plan 'xxx"),
    Kind(
        "plan: deleted, the instance moves to another",
        "delete from vps_plans where id = %(plan)s",
        "no plan",
        "any more: it was deleted, give the instance another plan_id",
        "update vps_instances set plan_id = %(same_price)s where id = %(victim)s",
    ),
    Kind(
        "plan: deleted and created again",
        "delete from vps_plans where id = %(plan)s",
        "no plan",
        "it was deleted",
        "insert into vps_plans (id, name, provider_plan_id, base_price) values (%(plan)s, 'again', 'again', 7.30)",
    ),
    Kind(
        "plan: not active",
        "update vps_plans set active = false where id = %(plan)s;;"
        "update vps_instances set plan_id = (select provider_plan_id from vps_plans where id = %(plan)s) where id = %(victim)s",
        "no plan",
        "that is active: activate it",
        "update vps_plans set active = true where id = %(plan)s",
    ),
    Kind(
        "plan: ambiguous, one goes",
        "insert into vps_plans (name, provider_plan_id, base_price) select 'twin', provider_plan_id, 9 from vps_plans"
        " where id = %(plan)s;;"
        "update vps_instances set plan_id = (select provider_plan_id from vps_plans where id = %(plan)s) where id = %(victim)s",
        "ambiguous plan",
        "2 active plans with different prices",
        "update vps_plans set active = false where name = 'twin'",
    ),
    Kind(
        "plan: ambiguous, the instance gets the id of one",
        "insert into vps_plans (name, provider_plan_id, base_price) select 'twin', provider_plan_id, 9 from vps_plans"
        " where id = %(plan)s;;"
        "update vps_instances set plan_id = (select provider_plan_id from vps_plans where id = %(plan)s) where id = %(victim)s",
        "ambiguous plan",
        "give it the id of one",
        "update vps_instances set plan_id = %(plan)s::text where id = %(victim)s",
    ),
    wallet(
        "missing",
        "delete from wallets where organization_id = %(other)s",
        "insert into wallets (organization_id, balance) values (%(other)s, 10)",
    ),
    wallet(
        "in another currency",
        "update wallets set currency = 'EUR' where organization_id = %(other)s",
        _OTHER_CURRENCY,
        "only in another currency",
    ),
    wallet(
        "without a currency",
        "update wallets set currency = null where organization_id = %(other)s",
        _OTHER_CURRENCY,
    ),
    balance("NaN", "'NaN'"),
    balance("missing", "null"),
    balance("infinite", "'Infinity'"),
    balance("infinitely negative", "'-Infinity'"),
    balance("huge", "1e30"),
    watermark("infinite", "last_billed_at = 'infinity'", *_INFINITE),
    watermark("none, created at infinity", "last_billed_at = null, created_at = 'infinity'", *_INFINITE),
    watermark(
        "no date at all",
        "last_billed_at = null, created_at = null",
        "undated",
        "set vps_instances.created_at",
    ),
    watermark("tomorrow", "last_billed_at = '2026-03-02'", *_FUTURE),
    watermark("in the year 294276", "last_billed_at = '294276-12-31'", *_FUTURE),
    Kind(
        "deleted while its price was unusable",
        "update vps_plans set base_price = 'NaN' where id = %(plan)s",
        "unusable price",
        "correct vps_plans",
        "delete from vps_instances where id = %(victim)s;; update vps_plans set base_price = 7.30 where id = %(plan)s",
    ),
]


class Poisoned:
    """A victim beside healthy neighbours; a victim of its wallet has an organization of its own."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.healthy = fleet.plan("7.30")
        self.plan = fleet.plan("7.30")
        self.acme, self.other = fleet.organization("10.00"), fleet.organization("10.00")
        self.neighbours = [fleet.instance(self.acme, self.healthy) for _ in range(2)]
        self.victim = fleet.instance(self.acme, self.plan)

    def execute(self, statements: str) -> None:
        """Run statements, which two semicolons part."""
        values = {
            "victim": self.victim,
            "plan": self.plan,
            "same_price": str(self.healthy),
            "other": self.other,
        }
        for statement in statements.split(";;"):
            self.fleet.conn.execute(statement, values)

    def paid(self, instance: UUID) -> tuple[str, str, Decimal]:
        """The first and the last instant that an instance was charged for, and how much in all; never with an overlap."""
        charges = sorted(self.fleet.charges(instance))
        for before, after in pairwise(charges):
            assert before[1] == after[0]
        assert {"billed"} == {charge[3] for charge in charges}
        return charges[0][0], charges[-1][1], sum((Decimal(charge[2]) for charge in charges), Decimal(0))


@pytest.fixture
def poisoned(conn: psycopg.Connection[Any]) -> Poisoned:
    for statement in _WIDER.split(";")[:-1]:
        conn.execute(statement)
    return Poisoned(Fleet(conn))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_poison(poisoned: Poisoned, kind: Kind) -> None:
    """One damaged instance is quarantined with a reason, twice; its neighbours are billed; repaired, it pays what is missing."""
    fleet = poisoned.fleet
    if kind.reason in ("no wallet", "unusable balance"):
        fleet.set(poisoned.victim, organization_id=poisoned.other)
    fleet.hours(1)
    fleet.bill()
    poisoned.execute(kind.poison)
    fleet.hours(2)
    first = fleet.bill()
    found = fleet.rows("select instance_id, reason, detail, first_seen_at from billing_quarantine")
    fleet.hours(1)
    second = fleet.bill()
    still = fleet.rows("select instance_id, reason, first_seen_at from billing_quarantine")

    assert [(poisoned.victim, kind.reason)] == [(row.instance_id, row.reason) for row in found]
    assert kind.detail in found[0].detail
    assert [(poisoned.victim, kind.reason, found[0].first_seen_at)] == [tuple(row) for row in still]
    for run in (first, second):
        assert (Outcome.COMPLETED, 2, 1) == (run.outcome, run.instances_billed, run.quarantined_instances)

    poisoned.execute(kind.repair)
    repaired = fleet.bill()

    assert (Outcome.COMPLETED, 1) == (repaired.outcome, repaired.instances_billed), repaired.error_message
    assert {} == fleet.quarantine()
    for instance in [*poisoned.neighbours, poisoned.victim]:
        assert ("01 00:00", "01 04:00", Decimal("0.04")) == poisoned.paid(instance)


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("label: 1 MB", "update vps_instances set label = repeat('x', 1000000) where id = %(victim)s"),
        ("label: markup", "update vps_instances set label = '<b onclick=''x''>&amp;' where id = %(victim)s"),
        (
            "label: SQL",
            "update vps_instances set label = '%%s''); drop table wallets; --' where id = %(victim)s",
        ),
        (
            "label: control characters",
            "update vps_instances set label = E'\\x01\\x1b[2J\\u202e' where id = %(victim)s",
        ),
        ("label: empty", "update vps_instances set label = '' where id = %(victim)s"),
        ("rated_until: taken away", "update vps_instances set rated_until = null where id = %(victim)s"),
        ("wallet: a second one", "insert into wallets (organization_id, balance) values (%(other)s, 'NaN')"),
        (
            "plan: inactive, known by its id",
            "update vps_plans set active = false where id = %(plan)s",
        ),
        (
            "plan: another one has its id as provider_plan_id",
            "insert into vps_plans (name, provider_plan_id, base_price) values ('twin', %(plan)s::text, 5000)",
        ),
        (
            "plan: several of one name at the same price",
            _BY_PROVIDER_NAME
            + "insert into vps_plans (name, provider_plan_id, base_price) select 'twin', provider_plan_id, base_price"
            " from vps_plans where id = %(plan)s",
        ),
        (
            "plan: several of one name, the same price in another mix",
            _BY_PROVIDER_NAME
            + "insert into vps_plans (name, provider_plan_id, base_price, markup_price, backup_upcharge_hourly)"
            " select 'twin', provider_plan_id, base_price - 1, 1, null from vps_plans where id = %(plan)s",
        ),
        (
            "plan: an unusable one that nobody has",
            "insert into vps_plans (name, provider_plan_id, base_price) values ('x', 'x', 'NaN')",
        ),
        (
            "watermark: moved back by half an hour",
            "update vps_instances set last_billed_at = '2026-03-01 00:30+00' where id = %(victim)s",
        ),
        (
            "watermark: moved back, its copy taken away",
            "update vps_instances set last_billed_at = '2026-03-01 00:30+00', rated_until = null where id = %(victim)s",
        ),
        (
            "watermark: restored from a backup",
            "update vps_instances set last_billed_at = null, rated_until = '2026-03-01 00:00+00' where id = %(victim)s",
        ),
        (
            "watermark: before all time",
            "update vps_instances set last_billed_at = '-infinity' where id = %(victim)s",
        ),
        (
            "watermark: none, created before all time",
            "update vps_instances set last_billed_at = null, created_at = '-infinity' where id = %(victim)s",
        ),
        (
            "watermark: in the year 1",
            "update vps_instances set last_billed_at = '0001-01-01' where id = %(victim)s",
        ),
        (
            "watermark: in the year 4713 before Christ",
            "update vps_instances set last_billed_at = '4713-01-01 BC' where id = %(victim)s",
        ),
        ("watermark: none any more", "update vps_instances set last_billed_at = null where id = %(victim)s"),
        (
            "watermark: cut to milliseconds",
            "update vps_instances set last_billed_at = date_trunc('milliseconds', last_billed_at) where id = %(victim)s",
        ),
        ("provider_instance_id: the same twice", "update vps_instances set provider_instance_id = 'twice'"),
    ],
    ids=lambda value: value if ":" in value and len(value) < 60 else "",
)
def test_what_looks_like_poison_and_is_none(poisoned: Poisoned, name: str, statement: str) -> None:
    """It is charged like everything else."""
    fleet = poisoned.fleet
    fleet.set(poisoned.victim, organization_id=poisoned.other)
    fleet.hours(1)
    fleet.bill()
    poisoned.execute(statement)
    fleet.hours(1)
    run = fleet.bill()

    assert (Outcome.COMPLETED, 3, {}) == (run.outcome, run.instances_billed, fleet.quarantine()), name
    assert ("01 00:00", "01 02:00", Decimal("0.02")) == poisoned.paid(poisoned.victim)
    assert all(
        len(row.description) < 400 for row in fleet.rows("select description from payment_transactions")
    )


def test_a_negative_balance_is_a_debt_and_no_poison(poisoned: Poisoned) -> None:
    """It owes like any empty wallet, and nothing is taken from it."""
    fleet = poisoned.fleet
    fleet.set(poisoned.victim, organization_id=poisoned.other)
    fleet.conn.execute("update wallets set balance = -5 where organization_id = %s", (poisoned.other,))
    fleet.hours(1)
    run = fleet.bill()

    assert (Outcome.COMPLETED, 1, {}) == (run.outcome, run.past_due_instances, fleet.quarantine())
    assert Decimal(-5) == fleet.balance(poisoned.other)[0]


@pytest.mark.parametrize("status", [None, "", "RUNNING", "<b>", "x" * 50])
def test_a_status_that_is_not_billable_is_not_billed(poisoned: Poisoned, status: str | None) -> None:
    """An instance without a billable status costs nothing, and is not quarantined either."""
    fleet = poisoned.fleet
    fleet.set(poisoned.victim, status=status)
    fleet.hours(1)

    assert (2, {}) == (fleet.bill().instances_billed, fleet.quarantine())


_FIRST_DATES = ["infinity", "-infinity", "294276-12-31", "2999-01-01", "2026-03-01 06:00+00"]


def adopted(poisoned: Poisoned, date: str) -> None:
    """A row of the host's from before it was adopted."""
    conn = poisoned.fleet.conn
    conn.execute("alter table vps_instances disable trigger user")
    conn.execute(
        "update vps_instances set created_at = %(date)s::timestamptz, rated_from = null, rated_until = null"
        " where id = %(victim)s",
        {"date": date, "victim": poisoned.victim},
    )
    conn.execute("alter table vps_instances enable trigger user")
    (step,) = [one for one in delivered_schema().tables[0].steps if one.title == "watermarks at adoption"]
    conn.execute(step.sql)  # type: ignore[call-overload]


def inserted(poisoned: Poisoned, date: str) -> None:
    """A new row of the host's."""
    poisoned.fleet.delete(poisoned.victim)
    poisoned.fleet.now = instant(date) if date[:3] == "202" else date  # type: ignore[assignment]
    poisoned.victim = poisoned.fleet.instance(poisoned.acme, poisoned.plan)


@pytest.mark.parametrize("date", _FIRST_DATES)
@pytest.mark.parametrize("comes", [adopted, inserted])
@pytest.mark.parametrize("change", ["", pytest.param("status = 'stopped'", marks=pytest.mark.slow)])
def test_a_first_date_that_nobody_can_believe_is_repaired_where_the_hint_says(
    poisoned: Poisoned, database: str, comes: Callable[[Poisoned, str], None], date: str, change: str
) -> None:
    """Nothing was ever charged: once created_at is right the instance pays from there, and the books are right."""
    fleet = poisoned.fleet
    comes(poisoned, date)
    fleet.at("2026-03-01 02:00")
    if change:
        fleet.set(poisoned.victim, status="stopped")
        fleet.set(poisoned.victim, status="running")
    fleet.bill()
    reason = "infinite watermark" if "infinity" in date else "future watermark"
    found = [(row.instance_id, row.reason) for row in fleet.rows("select * from billing_quarantine")]
    details = [row.detail for row in fleet.rows("select * from billing_quarantine")]

    assert [(poisoned.victim, reason)] == found
    assert details[0].endswith("set vps_instances.created_at to when it was created")
    assert verify(database).ok

    fleet.conn.execute(
        "update vps_instances set created_at = '2026-03-01 00:30+00' where id = %s", (poisoned.victim,)
    )
    fleet.at("2026-03-01 04:00")
    fleet.bill()
    fleet.delete(poisoned.victim)
    fleet.bill()

    assert {} == fleet.quarantine()
    assert ("01 00:30", "01 04:00", Decimal("0.035")) == poisoned.paid(poisoned.victim)
    assert verify(database).ok


def test_an_instance_that_begins_later_pays_from_then_without_anybody(
    poisoned: Poisoned, database: str
) -> None:
    """Created for 06:00 at 00:00: quarantined until it has begun, and charged from 06:00."""
    fleet = poisoned.fleet
    inserted(poisoned, "2026-03-01 06:00")
    fleet.at("2026-03-01 02:00")
    fleet.bill()
    early = fleet.quarantine()
    fleet.at("2026-03-01 08:00")
    fleet.bill()

    assert ({poisoned.victim: "future watermark"}, {}) == (early, fleet.quarantine())
    assert ("01 06:00", "01 08:00", Decimal("0.02")) == poisoned.paid(poisoned.victim)
    assert verify(database).ok


def test_a_change_does_not_make_a_watermark_ahead_of_its_time_ours(poisoned: Poisoned, database: str) -> None:
    """The host wrote the year 2999 over 01:00 and stopped the instance; moved back to 01:00, it pays what it ran."""
    fleet = poisoned.fleet
    fleet.hours(1)
    fleet.bill()
    fleet.set(poisoned.victim, last_billed_at="2999-01-01")
    fleet.hours(1)
    fleet.set(poisoned.victim, status="stopped")
    fleet.set(poisoned.victim, status="running")
    fleet.bill()
    found = [row.detail for row in fleet.rows("select * from billing_quarantine")]
    poisoned.execute(_LAST_CHARGE)
    fleet.bill()

    assert ["set vps_instances.last_billed_at to 2026-03-01 01:00:00+00"] == [
        one.split("): ")[1] for one in found
    ]
    assert ("01 00:00", "01 02:00", Decimal("0.02")) == poisoned.paid(poisoned.victim)
    assert verify(database).ok


def test_an_instance_older_than_its_outage_may_be_is_held(poisoned: Poisoned) -> None:
    """An instance that says it was created in the year 1 waits for a decision, and so do 17 million hours."""
    fleet = poisoned.fleet
    fleet.conn.execute("update vps_instances set created_at = '0001-01-01' where id = %s", (poisoned.victim,))
    with fleet.conn.transaction():
        fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute(
            "update vps_instances set last_billed_at = null, rated_until = '0001-01-01' where id = %s",
            (poisoned.victim,),
        )
    fleet.hours(1)
    run = fleet.bill()

    assert (Outcome.COMPLETED, 2, {poisoned.victim: "held"}) == (
        run.outcome,
        run.instances_billed,
        fleet.quarantine(),
    )


def test_everything_at_once(poisoned: Poisoned) -> None:
    """A hundred instances of one organization, each poisoned in its own way, stop none of the healthy ones.

    A watermark that was moved back is none: of those, twenty have a plan.
    """
    fleet = poisoned.fleet
    marks = ["infinity", "-infinity", "0001-01-01", "294276-01-01", "2026-03-02"]
    for number in range(100):
        victim = fleet.instance(poisoned.acme, str(uuid4()) if number % 2 else poisoned.plan)
        mark = marks[number % 5]
        fleet.conn.execute(
            "update vps_instances set last_billed_at = %s::timestamptz where id = %s", (mark, victim)
        )
    fleet.hours(1)
    run = fleet.bill()

    assert (Outcome.COMPLETED, 23, 80) == (run.outcome, run.instances_billed, run.quarantined_instances)
