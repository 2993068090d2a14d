"""No hour is lost in silence: kept through TRUNCATE and restore, or refused, or named by verify.

The plan costs one cent an hour; the instance runs from midnight.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify

DAY = "2026-03-01 "
HOST_COLUMNS = "id, organization_id, plan_id, provider_instance_id, label, status, created_at, last_billed_at"
NUMBERED = [
    "billing_runs",
    "billing_usage_segments",
    "billing_policies",
    "plan_price_versions",
    "billing_events",
]


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def paid(fleet: Fleet) -> Decimal:
    """Add up what is charged, exactly."""
    return fleet.rows("select sum(total_amount) as total from vps_billing_cycles where run_id is not null")[
        0
    ].total


def test_hours_before_a_resize_survive_a_truncate(fleet: Fleet) -> None:
    """Three hours at one cent stand in the row when the table is truncated and filled from a copy in one transaction."""
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.at(DAY + "03:00")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    with fleet.conn.transaction():
        fleet.conn.execute(f"create temp table c on commit drop as select {HOST_COLUMNS} from vps_instances")
        fleet.conn.execute("truncate vps_instances")
        fleet.conn.execute(f"insert into vps_instances ({HOST_COLUMNS}) select {HOST_COLUMNS} from c")
    fleet.at(DAY + "04:00")
    fleet.bill()

    assert Decimal("0.13") == paid(fleet)
    assert verify(fleet.conninfo).ok


def test_pending_segments_survive_a_dump_and_its_restore(fleet: Fleet) -> None:
    """All tables are emptied and filled again with every column, as pg_restore --data-only fills a database just migrated."""
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.at(DAY + "03:00")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.conn.execute("create table dumped as select * from vps_instances")
    fleet.conn.execute("set session_replication_role = replica")
    fleet.conn.execute("delete from vps_instances")
    fleet.conn.execute("reset session_replication_role")
    fleet.conn.execute("insert into vps_instances select * from dumped")
    fleet.at(DAY + "04:00")
    fleet.bill()

    assert Decimal("0.13") == paid(fleet)
    assert verify(fleet.conninfo).ok


def test_the_policies_of_a_dump_take_the_place_of_that_of_migrate(fleet: Fleet) -> None:
    """COPY brings the numbers along; the policy that migrate wrote has the first of them."""
    with fleet.conn.cursor().copy(
        "copy billing_policies (id, billable_statuses, partial_hour, valid_from, valid_to) from stdin"
    ) as rows:
        rows.write(
            "1\t{running}\tfull\t-infinity\t2026-02-01\n2\t{running,stopped}\tprorate\t2026-02-01\tinfinity\n"
        )

    assert [(1, "full"), (2, "prorate")] == [
        (row.id, row.partial_hour)
        for row in fleet.rows("select id, partial_hour from billing_policies order by id")
    ]


def test_the_lease_of_a_dump_takes_the_place_of_that_of_migrate(fleet: Fleet) -> None:
    """Its token goes on from there; after the first run the lease that is there stays, and a second one is refused."""
    lease = "copy billing_leases (name, fencing_token, nonce, expires_at) from stdin"
    row = "billing\t41\t6f1f3c7e-3f5b-4c54-9d3a-0d2b6b4f7a10\t-infinity\n"
    with fleet.conn.cursor().copy(lease) as rows:
        rows.write(row)
    assert [41] == [one.fencing_token for one in fleet.rows("select fencing_token from billing_leases")]
    fleet.bill()
    with pytest.raises(psycopg.errors.UniqueViolation), fleet.conn.cursor().copy(lease) as rows:
        rows.write(row)
    assert [42] == [one.fencing_token for one in fleet.rows("select fencing_token from billing_leases")]


def test_a_stop_that_no_trigger_saw_is_named(fleet: Fleet) -> None:
    """The hours between 03:00, until when it is charged, and its end are in no table; verify says whose they are."""
    owner, plan = fleet.organization("10.00"), fleet.plan("7.30")
    silent, seen, created = (
        fleet.instance(owner, plan),
        fleet.instance(owner, plan),
        fleet.instance(owner, plan, "stopped"),
    )
    fleet.at(DAY + "03:00")
    fleet.bill()
    fleet.set(seen, status="stopped")
    fleet.at(DAY + "04:30")
    fleet.conn.execute("set session_replication_role = replica")
    fleet.set(silent, status="stopped")
    fleet.conn.execute("reset session_replication_role")
    fleet.at(DAY + "06:00")
    fleet.bill()
    for instance in (silent, seen, created):
        fleet.set(instance, label="renamed")
    found = verify(fleet.conninfo)

    assert [("metering", str(silent))] == [
        (one.check, one.identifiers["instance_id"]) for one in found.discrepancies
    ]
    assert (
        "charged until 2026-03-01 03:00:00+00 and has the status stopped now"
        in found.discrepancies[0].message
    )


@pytest.mark.parametrize("table", NUMBERED)
def test_a_sequence_behind_its_table_is_found_before_a_run_and_mended_by_migrate(
    fleet: Fleet, table: str
) -> None:
    """A cut-over by logical replication copies rows and no sequences."""
    web = fleet.instance(fleet.organization("0.00"), fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()
    fleet.set(web, status="stopped")
    fleet.delete(web)
    fleet.conn.execute("select setval(pg_get_serial_sequence(%s, 'id'), 1, false)", (table,))
    with pytest.raises(SchemaMismatch, match=f"Sequences stand behind.*{table}") as refused:
        fleet.bill()
    migrate(fleet.conninfo)

    assert "migrate" in str(refused.value.hint)
    assert Outcome.COMPLETED is fleet.bill().outcome


@pytest.mark.parametrize("where", ["role", "database", "role in database", "connection"])
def test_a_default_that_silences_triggers_is_refused(
    fleet: Fleet, database: str, server: str, role: str, where: str
) -> None:
    """Nobody would meter what such a session changes; the hint is the statement that ends it."""
    name = fleet.conn.info.dbname
    fleet.conn.execute(sql.SQL("grant update on vps_instances to {}").format(sql.Identifier(role)))
    statement = {
        "role": sql.SQL("alter role {role} set session_replication_role = replica"),
        "database": sql.SQL("alter database {database} set session_replication_role = replica"),
        "role in database": sql.SQL(
            "alter role {role} in database {database} set session_replication_role = replica"
        ),
    }
    names = {"role": sql.Identifier(role), "database": sql.Identifier(name)}
    order = fleet.order()
    if where == "connection":
        order = fleet.order(conninfo=f"{fleet.conninfo} options='-c session_replication_role=replica'")
    else:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(statement[where].format(**names))
    with pytest.raises(SchemaMismatch, match="No trigger of billing fires") as refused:
        run_billing(order)
    hint = str(refused.value.hint).splitlines()[0]
    if where != "connection":
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(hint.encode())
        assert Outcome.COMPLETED is fleet.bill().outcome


def test_a_signup_does_not_fail_where_the_host_dropped_a_column_of_ours(fleet: Fleet) -> None:
    """An ORM that knows nothing of wallets.billing_opening removes it; the host's INSERT goes on."""
    owner = fleet.organization(None)
    fleet.conn.execute("alter table wallets drop column billing_opening")
    fleet.wallet(owner, "10.00")

    assert [Decimal("10.00")] == [row.balance for row in fleet.rows("select balance from wallets")]
