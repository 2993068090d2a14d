"""Row security of the successor: a role of least privilege bills and verifies under it, or is refused with the cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.hosts.life import Successor

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.daemon.preflight import preflight
from containerstacks_billing.database.grants import billing_grants, reading_grants
from containerstacks_billing.errors import RightsMissing
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def adopted(successor: Successor) -> Successor:
    """The successor with an instance that has run for two hours since its creation."""
    acme = successor.customer("20.00")
    successor.create_vps(acme, successor.plan("7.30"), "web")
    successor.adopt(billable_statuses=("*",))
    successor.conn.execute("grant select on test_clock to public")
    successor.hours(2)
    return successor


@pytest.fixture
def admitted(adopted: Successor, server: str, role: str) -> Callable[..., str]:
    """A function that runs the statements of `grants` for a role and returns how it connects."""

    def admit(*, reading: bool = False, policies: bool = True) -> str:
        database = adopted.conn.info.dbname
        for statement in (reading_grants if reading else billing_grants)(database, role):
            if policies or "billing_admit_rows" not in statement:
                adopted.conn.execute(statement.encode())
        return make_conninfo(server, dbname=database, user=role, password=role)

    yield admit
    adopted.conn.execute(f"drop owned by {role}".encode())


def test_a_role_of_grants_bills_under_row_security(adopted: Successor, admitted: Callable[..., str]) -> None:
    """The statements that `grants` prints hold the policies too: the charge is the owner's, to the cent."""
    assert adopted.fleet is not None
    url = admitted()
    preflight(url)
    result = run_billing(replace(adopted.fleet.order(), conninfo=url))
    assert (result.outcome, result.amount.normalize()) == (Outcome.COMPLETED, Decimal("0.02"))
    assert verify(url).ok


@pytest.mark.parametrize("look", ["preflight", "run", "dry run", "verify"])
def test_rows_that_a_policy_hides_are_a_refusal_and_not_an_empty_fleet(
    adopted: Successor, admitted: Callable[..., str], look: str
) -> None:
    """Without policies of its own the role bills nothing silently: it is told which tables, and the one statement."""
    assert adopted.fleet is not None
    url = admitted(policies=False)
    order = replace(adopted.fleet.order(), conninfo=url)
    with pytest.raises(RightsMissing, match="payment_transactions, wallets") as refused:
        {
            "preflight": lambda: preflight(url),
            "run": lambda: run_billing(order),
            "dry run": lambda: dry_run(order, Limits()),
            "verify": lambda: verify(url),
        }[look]()
    assert refused.value.hint is not None
    adopted.conn.execute(refused.value.hint.removeprefix("As the owner of the tables: ").encode())
    preflight(url)


def test_a_reader_is_given_policies_to_read_and_no_more(
    adopted: Successor, admitted: Callable[..., str]
) -> None:
    """It verifies, and writes no balance."""
    url = admitted(reading=True)
    assert verify(url).open_items.quarantined_instances == 0
    with (
        psycopg.connect(url, autocommit=True) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("update wallets set balance = 0")


def test_a_policy_that_shows_every_row_and_lets_none_be_changed_is_refused(
    adopted: Successor, admitted: Callable[..., str], role: str
) -> None:
    """The debit would pass over the wallet without an error: a charge and a ledger entry, and a balance that stays."""
    url = admitted(policies=False)
    for table in ("wallets", "payment_transactions"):
        adopted.conn.execute(f"create policy shown on {table} for select to {role} using (true)".encode())
    adopted.conn.execute(
        f"create policy written on payment_transactions for insert to {role} with check (true)".encode()
    )
    with pytest.raises(RightsMissing, match="rows of wallets from"):
        preflight(url)
    adopted.conn.execute(f"create policy changed on wallets for update to {role} using (true)".encode())
    preflight(url)


def test_instances_hidden_by_a_policy_made_later_stop_billing_loudly(
    adopted: Successor, admitted: Callable[..., str]
) -> None:
    """The host turns row security on for its instances, for its own role only."""
    assert adopted.fleet is not None
    url = admitted()
    adopted.conn.execute("alter table vps_instances enable row level security")
    with pytest.raises(RightsMissing, match="vps_instances"):
        run_billing(replace(adopted.fleet.order(), conninfo=url))
