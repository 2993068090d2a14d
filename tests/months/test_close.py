"""Closed months: every billed hour is frozen once, and whatever is changed afterwards is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.command import Command
from tests.fleet import Fleet

from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.explain.month import month_named
from containerstacks_billing.months.close import close
from containerstacks_billing.months.proof import export, verify_export, verify_months

MARCH, APRIL, MAY = (month_named(f"2026-0{number}") for number in (3, 4, 5))


class Books:
    """A rich and a poor organization from the last evening of March until the first hours of May."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.fleet = Fleet(conn, at="2026-03-31 20:15")
        self.rich, self.poor = self.fleet.organization("100.00"), self.fleet.organization("0.03")
        plan = self.fleet.plan("8.03")
        self.web = self.fleet.instance(self.rich, plan)
        self.mail = self.fleet.instance(self.rich, plan)
        self.owing = self.fleet.instance(self.poor, plan)
        for moment in ("2026-03-31 23:15", "2026-04-01 02:15"):
            self.fleet.at(moment)
            self.fleet.bill()

    def until_may(self) -> None:
        """The poor one pays its hours of March in April; one instance of the rich one is stopped, the other deleted."""
        self.fleet.at("2026-04-02 00:40")
        self.fleet.set(self.web, status="stopped")
        self.fleet.delete(self.mail)
        self.fleet.set(self.owing, status="stopped")
        self.fleet.top_up(self.poor, "5.00")
        self.fleet.at("2026-04-02 01:00")
        self.fleet.bill()
        self.fleet.at("2026-05-01 01:00")

    def close(self, month: Any, **options: Any) -> str:
        """Close a month and return its hash."""
        return str(close(self.fleet.conninfo, month, "test", **options).sha256)

    def damage(self, statement: str, *values: Any) -> None:
        """Do to the rows what neither the product nor the host would."""
        assert self.fleet.conn.execute(statement, values or None).rowcount == 1

    def found(self) -> list[tuple[str, UUID | None]]:
        """Return what is different from what was frozen."""
        return [(one.month, one.organization_id) for one in verify_months(self.fleet.conninfo)[1]]


@pytest.fixture
def books(conn: psycopg.Connection[Any]) -> Books:
    return Books(conn)


def test_every_billed_hour_is_frozen_once_and_the_carry_follows(books: Books) -> None:
    """What the poor one pays in April for hours of March is a late line of April; the sums are those of the charges."""
    books.close(MARCH)
    books.until_may()
    books.close(APRIL)

    rows = books.fleet.rows(
        "select month, organization_id, amount, late_amount, carry_in, carry_out, billed, debits"
        " from billing_month_totals order by month, amount desc"
    )
    rich, poor = books.rich, books.poor
    assert [
        ("2026-03", rich, Decimal("0.088"), 0),
        ("2026-03", poor, Decimal("0.022"), 0),
        ("2026-04", rich, Decimal("0.53716666"), 0),
        ("2026-04", poor, Decimal("0.26858333"), Decimal("0.022")),
    ] == [row[:4] for row in rows]
    billed = dict(
        books.fleet.conn.execute(
            "select organization_id, sum(total_amount) from vps_billing_cycles where status = 'billed' group by 1"
        ).fetchall()
    )
    for organization in (rich, poor):
        march, april = [row for row in rows if row.organization_id == organization]
        assert march.amount + april.amount + april.late_amount == billed[organization]
        assert march.carry_in == 0
        assert march.carry_out == april.carry_in
        assert april.carry_out == books.fleet.balance(organization)[1]
        assert march.billed + april.billed - march.debits - april.debits == april.carry_out
    assert [] == books.found()


CHANGES: dict[str, tuple[str, set[str]]] = {
    "the eighth digit": (
        "update vps_billing_cycles set total_amount = total_amount + 0.00000001 where id = (select id from"
        " vps_billing_cycles where vps_instance_id = %(web)s order by billing_period_start limit 1)",
        {"rich"},
    ),
    "two that compensate each other": (
        "with moved as (update vps_billing_cycles set vps_instance_id = gen_random_uuid() where id = (select id from"
        " vps_billing_cycles where vps_instance_id = %(web)s order by billing_period_start limit 1) returning true)"
        " select from moved",
        {"rich"},
    ),
    "a charge that is gone": (
        "delete from vps_billing_cycles where id = (select id from vps_billing_cycles where vps_instance_id = %(web)s"
        " order by billing_period_start limit 1)",
        {"rich"},
    ),
    "a debit": (
        "update payment_transactions set amount = amount - 0.01 where id = (select id from payment_transactions"
        " where organization_id = %(rich)s and amount < 0 limit 1)",
        {"rich"},
    ),
    "a frozen total": (
        "update billing_month_totals set amount = amount + 1 where month = '2026-03' and organization_id = %(rich)s",
        {"rich", "the month"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_in_a_closed_month_is_found(books: Books, change: str) -> None:
    """Each change is named with its organization; the hash of the month itself is different where its totals were changed."""
    books.close(MARCH)
    assert [] == books.found()
    statement, places = CHANGES[change]
    changed = books.fleet.conn.execute(statement, {"web": books.web, "rich": books.rich})
    assert changed.rowcount == 1
    names = {books.rich: "rich", books.poor: "poor", None: "the month"}
    assert {("2026-03", place) for place in places} == {
        (month, names[organization]) for month, organization in books.found()
    }


def test_a_change_of_the_past_breaks_the_chain(books: Books) -> None:
    """A hash of March that was forged to fit its totals is found by April, which followed from the true one."""
    march = books.close(MARCH)
    books.until_may()
    april = books.close(APRIL)
    assert books.fleet.rows("select previous_sha256 from billing_months where month = '2026-04'")[0] == (
        march,
    )
    assert april != march
    books.damage("update billing_months set sha256 = 'forged' where month = '2026-03'")
    assert [("2026-03", None), ("2026-04", None)] == books.found()


def test_an_export_is_proven_and_one_digit_is_found(books: Books, tmp_path: Path) -> None:
    """The lines of a month by their hashes: as exported, with a digit changed, with a line missing, and of no month."""
    books.close(MARCH)
    file = tmp_path / "march.csv"
    conninfo = books.fleet.conninfo
    lines = export(conninfo, "2026-03", file)
    text = file.read_text()
    assert (lines, []) == (len(text.splitlines()) - 1, verify_export(conninfo, "2026-03", file))

    last = text.splitlines()[-1].split(",")
    file.write_text(text.replace(last[5], last[5][:-1] + str((int(last[5][-1]) + 1) % 10)))
    assert verify_export(conninfo, "2026-03", file)
    file.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    assert [UUID(last[0])] == [one.organization_id for one in verify_export(conninfo, "2026-03", file)]
    file.write_text("other\n")
    with pytest.raises(WorkFailed, match="no export of a month"):
        verify_export(conninfo, "2026-03", file)
    with pytest.raises(WorkFailed, match="2026-04 is not closed"):
        export(conninfo, "2026-04", file)


def test_what_a_month_is_refused_for(books: Books) -> None:
    """One that runs, one with an hour that is due, an older one that is open, and books that are wrong."""

    def refusal(month: Any) -> str:
        with pytest.raises(WorkFailed) as refused:
            books.close(month)
        return str(refused.value)

    assert "2026-03 is not closed, and older months come first." == refusal(APRIL)
    books.damage("update wallets set balance = balance + 1 where organization_id = %s", books.rich)
    assert "verify finds 1 discrepancy; 2026-03 was not closed." == refusal(MARCH)
    books.damage("update wallets set balance = balance - 1 where organization_id = %s", books.rich)
    books.close(MARCH)
    assert "2026-04 is not complete: it ends at 2026-05-01 00:00 UTC." == refusal(APRIL)
    books.fleet.at("2026-05-01 01:00")
    assert "2026-04 is not complete: 3 instances not charged to the end of the month." == refusal(APRIL)
    assert [("2026-03", "closed")] == books.fleet.rows("select month, state from billing_months")


def test_two_at_once_close_a_month_once(books: Books) -> None:
    """Both get the same hash, and a third one, later, gets it too."""
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(lambda _: books.close(MARCH, at_once=1), range(2))
    assert first == second == books.close(MARCH)
    assert [] == books.found()


def test_the_commands(books: Books, command: Command, tmp_path: Path) -> None:
    """A dry run, a close without --yes, the close, the list, the proof and the export, as documents."""

    def document(*arguments: str) -> Any:
        ran = command("months", *arguments, "--json", environment={"DATABASE_URL": books.fleet.conninfo})
        assert ran.returncode in (0, 1), ran.stderr
        return json.loads(ran.stdout)

    dry = document("close", "2026-03", "--dry-run")
    assert ("closable", True, None) == (dry["state"], dry["dryRun"], dry["sha256"])
    assert [] == books.fleet.rows("select from billing_months")
    assert (
        2
        == command(
            "months", "close", "2026-03", environment={"DATABASE_URL": books.fleet.conninfo}
        ).returncode
    )
    closed = document("close", "2026-03", "--yes")
    assert dry == closed | {
        "state": "closable",
        "dryRun": True,
        "closedBy": None,
        "closedAt": None,
        "sha256": None,
    }
    assert ["closed", closed["sha256"]] == [document("list")["months"][0][key] for key in ("state", "sha256")]
    assert {"ok": True, "months": ["2026-03"], "sha256": closed["sha256"], "discrepancies": []} == document(
        "verify"
    )
    shown = document("show", "2026-03")
    assert closed["sha256"] == shown["sha256"]
    assert [(str(books.rich), 4, "8", "0.088"), (str(books.poor), 1, "2", "0.022")] == [
        (one["organizationId"], one["charges"], one["hours"], one["amount"]) for one in shown["organizations"]
    ]
    table = command("months", "show", "2026-03", environment={"DATABASE_URL": books.fleet.conninfo})
    assert f"sha256 {closed['sha256']}" == table.stdout.splitlines()[-1]
    file = tmp_path / "march.csv"
    command(
        "months", "export", "2026-03", "--csv", str(file), environment={"DATABASE_URL": books.fleet.conninfo}
    )
    assert document("verify", "--month", "2026-03", "--csv", str(file))["ok"]
    books.damage("update billing_month_totals set debits = 0 where organization_id = %s", books.rich)
    assert [None, str(books.rich)] == [one["organizationId"] for one in document("verify")["discrepancies"]]


@pytest.mark.slow
def test_killed_anywhere_while_closing(books: Books, database: str) -> None:
    """Forty organizations, one a transaction; killed after more and more of them, and given again: one hash, nothing missing."""
    plan = books.fleet.plan("7.30")
    books.until_may()
    close(books.fleet.conninfo, MARCH, "test")
    for _ in range(40):
        books.fleet.instance(books.fleet.organization("50.00"), plan)
    books.fleet.hours(1)
    books.fleet.bill()
    program = (
        "import sys; from containerstacks_billing.months.close import close;"
        "from containerstacks_billing.explain.month import month_named;"
        "close(sys.argv[1], month_named('2026-04'), 'killed', at_once=1)"
    )
    kills = 0
    for attempt in range(30):
        running = subprocess.Popen([sys.executable, "-c", program, books.fleet.conninfo])
        try:
            running.wait(timeout=0.4 + attempt * 0.05)
            break
        except subprocess.TimeoutExpired:
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            kills += 1
    assert kills
    assert books.close(APRIL) == books.close(APRIL)
    assert [] == books.found(), database
