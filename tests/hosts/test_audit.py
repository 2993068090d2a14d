"""Audit: what the host's own program took, on databases damaged by its faults, customer by customer."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from uuid import UUID

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.command import Command
from tests.fleet import instant
from tests.hosts.life import HOUR, ContainerStacks

from containerstacks_billing.explain.audit import AuditOrder, AuditRow, audit_rows
from containerstacks_billing.explain.snapshot import snapshot

CENT = Decimal("0.01")
ADJUSTED = 1
# Monthly price, with the hourly rate as the host's column keeps it and what it debits for an hour.
PRICES = {
    "7.30": (Decimal("0.0100"), Decimal("0.01")),
    "5.00": (Decimal("0.0068"), Decimal("0.01")),
    "14.60": (Decimal("0.0200"), Decimal("0.02")),
    "3.00": (Decimal("0.0041"), Decimal("0.00")),
    "20.00": (Decimal("0.0274"), Decimal("0.03")),
}


@dataclass
class Planted:
    """What was done to a customer."""

    organization: UUID
    vps: UUID
    rate: Decimal
    debit: Decimal
    hours: int = 0
    doubles: int = 0
    lost: Decimal = field(default_factory=Decimal)
    creation: Decimal = field(default_factory=Decimal)


def audited(host: ContainerStacks, **order: object) -> dict[UUID, AuditRow]:
    conninfo = f"{host.conn.info.dsn} password={host.conn.info.password}"
    with snapshot(conninfo) as connection:
        rows = audit_rows(connection, AuditOrder(**order))  # type: ignore[arg-type]
    for one in rows:
        assert one.ledger == one.due + one.doubled + one.creation_hours + one.rounding + one.unknown
    return {one.organization_id: one for one in rows}


def customer(host: ContainerStacks, price: str, label: str) -> Planted:
    """A customer with 50.00 and one instance, whose creation was debited."""
    rate, debit = PRICES[price]
    organization = host.customer("50.00")
    vps = host.create_vps(organization, host.plan(price), label)
    host.hours(0)
    return Planted(organization, vps, rate, debit, creation=_cents(Decimal(price) / 730))


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)


def bill(host: ContainerStacks, one: Planted, *, twice: bool = False, lost: bool = False) -> None:
    """Let the host bill one hour of a customer; a second daemon does it again from the watermark that it read before.

    Lost: the second daemon read the balance before the first wrote it, so only one of both debits is on the wallet.
    """
    (before,) = host._rows(
        "select vps.last_billed_at, balance from vps_instances vps"
        " join wallets using (organization_id) where vps.id = %s",
        one.vps,
    )
    assert host.bill_hourly([one.vps]) == 1
    one.hours += 1
    if not twice:
        return
    host.conn.execute(
        "update vps_instances set last_billed_at = %s where id = %s", (before.last_billed_at, one.vps)
    )
    if lost:
        host._write_balance(one.organization, before.balance)
        one.lost += one.debit
    assert host.bill_hourly([one.vps]) == 1
    one.doubles += 1


def test_each_fault_of_the_original(containerstacks: ContainerStacks) -> None:
    """Two daemons, a lost update, rounding, a creation hour: each stands in its own column, and the net is what was lost."""
    host = containerstacks
    sound, rounded, doubled, lost = (
        customer(host, price, label)
        for price, label in (("7.30", "sound"), ("5.00", "rounded"), ("7.30", "doubled"), ("7.30", "lost"))
    )
    for hour in range(10):
        host.hours(1.001)
        for one in (sound, rounded):
            bill(host, one)
        bill(host, doubled, twice=hour < 4)
        bill(host, lost, twice=hour < 4, lost=hour < 3)
    host.adopt()
    found = audited(host)

    assert {
        #                    due       ledger    moved    doubled   creation  rounding     net      proposed
        sound.organization: ("0.1000", "0.11", "0.11", "0.0000", "0.01", "0.0000", "0.0100", "0.01"),
        rounded.organization: ("0.0680", "0.11", "0.11", "0.0000", "0.01", "0.0320", "0.0420", "0.04"),
        doubled.organization: ("0.1000", "0.15", "0.15", "0.0400", "0.01", "0.0000", "0.0500", "0.05"),
        lost.organization: ("0.1000", "0.15", "0.12", "0.0400", "0.01", "0.0000", "0.0200", "0.02"),
    } == {
        key: tuple(
            f"{amount:.{digits}f}"
            for amount, digits in (
                (one.due, 4),
                (one.ledger, 2),
                (one.wallet_moved or 0, 2),
                (one.doubled, 4),
                (one.creation_hours, 2),
                (one.rounding, 4),
                (one.net or 0, 4),
                (one.proposed, 2),
            )
        )
        for key, one in found.items()
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_the_net_is_what_was_planted(containerstacks: ContainerStacks, seed: int) -> None:
    """A random past: the net of every customer is what his wallet lost beyond the hours that he used."""
    host, chance = containerstacks, random.Random(seed)
    planted = [customer(host, chance.choice(list(PRICES)), f"vps-{number}") for number in range(6)]
    for _ in range(12):
        host.hours(1.001)
        for one in planted:
            if chance.random() < 0.8:
                bill_all(host, one, chance)
    host.adopt()
    found = audited(host)

    assert {
        one.organization: (
            one.hours * one.rate,
            one.doubles * one.rate,
            (one.hours + one.doubles) * one.debit + one.creation - one.lost - one.hours * one.rate,
        )
        for one in planted
        if one.hours
    } == {key: (one.due, one.doubled, one.net) for key, one in found.items() if one.periods}


def bill_all(host: ContainerStacks, one: Planted, chance: random.Random) -> None:
    """Bill the last hour, as its own hour, whatever was left out before."""
    twice = chance.random() < 0.4
    (row,) = host._rows("select last_billed_at from vps_instances where id = %s", one.vps)
    if host.now - row.last_billed_at >= 2 * HOUR:
        # The daemon was down: the host bills the hours at once, and rounds them at once.
        host.conn.execute(
            "update vps_instances set last_billed_at = %s where id = %s", (host.now - 1.5 * HOUR, one.vps)
        )
    bill(host, one, twice=twice, lost=twice and chance.random() < 0.5)


def test_what_is_not_known_is_said(containerstacks: ContainerStacks) -> None:
    """A deleted instance took its rows along, two wallets share the debits: nothing is proposed for either."""
    host = containerstacks
    gone, shared, again = (customer(host, "7.30", label) for label in ("gone", "shared", "again"))
    for _ in range(3):
        host.hours(1.001)
        for one in (gone, shared, again):
            bill(host, one)
    host.delete_vps(gone.vps)
    # An instance of the same name as one that is gone: the old debits are not doubles of the new one's.
    host.delete_vps(again.vps)
    again.vps = host.create_vps(again.organization, host.plan("7.30"), "again")
    host.hours(1.001)
    bill(host, again)
    host.conn.execute(
        "insert into wallets (organization_id, balance, currency) values (%s, 0, 'USD')",
        (shared.organization,),
    )
    host.adopt()
    found = audited(host)

    assert {
        gone.organization: (Decimal(0), Decimal("0.04"), Decimal(0), Decimal(0)),
        shared.organization: (Decimal("0.03"), Decimal(0), None, Decimal(0)),
        again.organization: (Decimal("0.01"), Decimal("0.04"), Decimal("0.01"), Decimal("0.01")),
    } == {key: (one.due, one.unknown, one.net, one.proposed) for key, one in found.items()}
    assert "4 debited hours without a row" in found[gone.organization].note
    assert "2 wallets in USD" in found[shared.organization].note


def test_a_daemon_killed_between_debit_and_row(containerstacks: ContainerStacks) -> None:
    """The next one debits the hour again: doubled, as every instance of that name that was created is there."""
    host = containerstacks
    one = customer(host, "7.30", "web")
    host.hours(1.001)
    host.deduct_funds(one.organization, Decimal("0.01"), "VPS Hourly Billing - web (1h)")
    bill(host, one)
    host.adopt()
    (found,) = audited(host).values()

    assert (Decimal("0.01"), Decimal("0.01"), Decimal("0.01"), Decimal("0.02")) == (
        found.due,
        found.doubled,
        found.creation_hours,
        found.net,
    )


def test_hours_of_the_host_that_a_run_charged_too(containerstacks: ContainerStacks) -> None:
    """After adoption a run of ours is what counts: the host's debit for the same hour is a double."""
    host = containerstacks
    one = customer(host, "7.30", "web")
    host.hours(1.001)
    bill(host, one)
    host.adopt(billable_statuses=("*",))
    assert host.fleet is not None
    host.hours(1.001)
    host.fleet.bill()
    host.conn.execute("set session_replication_role = replica")
    host.conn.execute("update vps_instances set last_billed_at = last_billed_at - interval '1 hour'")
    host.conn.execute("reset session_replication_role")
    assert host.bill_hourly() == 1
    (found,) = audited(host).values()

    assert (Decimal("0.01"), Decimal("0.01"), Decimal("0.02")) == (found.due, found.doubled, found.net)


def test_hours_that_the_host_tried_and_never_charged(containerstacks: ContainerStacks) -> None:
    """A row for every try at an empty wallet: what the tries cover is worth two hours, and nothing is due for it."""
    host = containerstacks
    one = customer(host, "7.30", "web")
    host.deduct_funds(one.organization, host.balance(one.organization), "Spent elsewhere")
    for _ in range(2):
        host.hours(1.001)
        assert host.bill_hourly() == 0
    host.conn.execute("update vps_instances set last_billed_at = %s", (host.now,))
    host.adopt()
    (found,) = audited(host).values()

    assert (Decimal("0.02"), Decimal(0), Decimal("0.01")) == (found.failed_and_free, found.due, found.unknown)


def test_a_balance_that_was_changed_by_hand(containerstacks: ContainerStacks) -> None:
    """What the wallet lost beyond all entries is in the net, and said, so that it is looked at before it is given back."""
    host = containerstacks
    one = customer(host, "7.30", "web")
    host.hours(1.001)
    bill(host, one)
    host._write_balance(one.organization, Decimal("40.00"))
    host.adopt()
    (found,) = audited(host).values()

    assert (Decimal("10.00"), Decimal("9.99")) == (found.wallet_moved, found.net)
    assert "the wallet lost 9.98 beyond all entries" in found.note


def test_one_bad_row_costs_no_other_customer_his_line(containerstacks: ContainerStacks) -> None:
    """Rows of a host hold what they hold: endless dates, amounts that are no number, labels that look like a statement."""
    host = containerstacks
    sound, bad = customer(host, "7.30", "sound"), customer(host, "7.30", "%s'; -- (1h)")
    for _ in range(2):
        host.hours(1.001)
        for one in (sound, bad):
            bill(host, one)
    host.adopt()
    for statement in (
        "update vps_billing_cycles set created_at = 'infinity', billing_period_end = 'infinity' where id ="
        " (select id from vps_billing_cycles where organization_id = %s limit 1)",
        "update payment_transactions set created_at = 'infinity', amount = 'NaN', description ="
        " 'VPS Hourly Billing - (99999999h)' where id = (select id from payment_transactions"
        " where organization_id = %s and amount < 0 order by id limit 1)",
        "update wallets set created_at = '-infinity' where organization_id = %s",
    ):
        host.conn.execute(statement.encode(), (bad.organization,))
    found = audited(host)

    assert (Decimal("0.02"), Decimal("0.01")) == (
        found[sound.organization].due,
        found[sound.organization].net,
    )
    assert Decimal("0.01") == found[bad.organization].due


def test_since_an_instant(containerstacks: ContainerStacks) -> None:
    """Only what was debited from then on, with what the wallet moved since, by the balance that the entry before states."""
    host = containerstacks
    one = customer(host, "7.30", "web")
    for _ in range(2):
        host.hours(1.001)
        bill(host, one, twice=True, lost=True)
    since = host.now + timedelta(minutes=30)
    for _ in range(2):
        host.hours(1.001)
        bill(host, one, twice=True)
    host.adopt()
    (found,) = audited(host, since=since).values()

    assert (Decimal("0.02"), Decimal("0.04"), Decimal("0.04"), Decimal("0.02")) == (
        found.due,
        found.ledger,
        found.wallet_moved,
        found.net,
    )
    assert audited(host, since=instant("2027-01-01 00:00")) == {}


def test_the_command_and_its_file(
    role: str, containerstacks: ContainerStacks, command: Command, tmp_path: Path
) -> None:
    """One line a customer in the file, for `audit post`, by a role that may only read; a name that begins a formula does not."""
    host = containerstacks
    one = customer(host, "5.00", "web")
    host.conn.execute("update organizations set name = '=cmd|calc!A0'")
    host.hours(1.001)
    bill(host, one)
    host.adopt()
    file = tmp_path / "audit.csv"
    host.conn.execute("select billing_admit(%s, reading => true)", (role,))
    environment = {"DATABASE_URL": make_conninfo(host.conn.info.dsn, user=role, password=role)}
    written = command("audit", "--csv", str(file), "--json", environment=environment)
    host.conn.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))

    assert written.returncode == 0, written.stderr
    document = json.loads(written.stdout)
    assert ("0.0068", "0.02", "0.0132", "0.01") == tuple(
        document["sums"][key] for key in ("due", "ledger", "net", "proposed")
    )
    assert file.read_bytes().startswith(
        b"organizationId,organization,currency,walletId,periods,hours,due,ledger,"
    )
    (line,) = csv.DictReader(file.read_text().splitlines())
    assert {
        "organizationId": str(one.organization),
        "organization": "'=cmd|calc!A0",
        "net": "0.0132",
        "proposed": "0.01",
        "since": "",
        "asOf": document["asOf"],
    }.items() <= line.items()


def test_what_is_proposed_is_paid_back_once(
    containerstacks: ContainerStacks, command: Command, tmp_path: Path
) -> None:
    """Two customers were debited twice; one line is lowered, a raised one is refused; the same file again pays nothing."""
    host = containerstacks
    first, second = customer(host, "7.30", "first"), customer(host, "7.30", "second")
    for _ in range(6):
        host.hours(1.001)
        bill(host, first, twice=True)
        bill(host, second, twice=True)
    host.adopt()
    environment = {"DATABASE_URL": f"{host.conn.info.dsn} password={host.conn.info.password}"}
    file = tmp_path / "audit.csv"
    assert 0 == command("audit", "--csv", str(file), environment=environment).returncode
    text = file.read_text()
    lowered = [
        line.replace(",0.07,", ",0.05,") if str(first.organization) in line else line
        for line in text.splitlines()
    ]
    file.write_text("\n".join(lowered))
    before = {one: host.balance(one) for one in (first.organization, second.organization)}
    shown = command(
        "audit", "post", "--file", str(file), "--reason", "agreed", "--dry-run", environment=environment
    )
    posted = command(
        "audit", "post", "--file", str(file), "--reason", "agreed", "--yes", "--json", environment=environment
    )
    again = command(
        "audit", "post", "--file", str(file), "--reason", "agreed", "--yes", "--json", environment=environment
    )
    raised = tmp_path / "raised.csv"
    raised.write_text(text.replace(",0.07,", ",7.00,"))
    refused = command(
        "audit",
        "post",
        "--file",
        str(raised),
        "--reason",
        "x",
        "--dry-run",
        "--json",
        environment=environment,
    )
    moved = {one: host.balance(one) - before[one] for one in before}

    assert (0, True) == (shown.returncode, "Nothing was changed." in shown.stdout), shown.stderr
    assert {"credited": 2, "amount": "0.12"}.items() <= json.loads(posted.stdout).items()
    assert (0, ["already paid back"] * 2) == (
        json.loads(again.stdout)["credited"],
        [one["answer"] for one in json.loads(again.stdout)["lines"]],
    )
    assert (0, 1) == (again.returncode, len({one["answer"] for one in json.loads(refused.stdout)["lines"]}))
    assert {first.organization: Decimal("0.05"), second.organization: Decimal("0.07")} == moved
    entries = host._rows(
        "select * from payment_transactions where provider_transaction_id like 'billing-audit-%%'"
    )
    assert {("manual_adjustment", "VPS Billing Repayment")} == {
        (e.payment_method, e.description) for e in entries
    }
    assert [(ADJUSTED, None)] * 2 == [
        (one.order_id, one.charge_id) for one in host._rows("select * from billing_adjustments")
    ]
    assert 0 == command("verify", environment=environment).returncode
    why = command("why", str(entries[0].id), environment=environment)
    assert (0, True) == (why.returncode, "audit 1" in why.stdout), why.stdout + why.stderr
    assert 0 == command("why", str(entries[0].id), "--customer", environment=environment).returncode
    assert {Decimal("0.02"), Decimal(0)} == {one.proposed for one in audited(host).values()}
