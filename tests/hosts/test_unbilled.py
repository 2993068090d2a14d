"""What the successor has and nothing charges is a leak."""

from __future__ import annotations

from tests.hosts.life import Successor

from containerstacks_billing.explain.leaks import find_leaks
from containerstacks_billing.explain.snapshot import snapshot


def test_volumes_and_backups_of_the_successor(successor: Successor) -> None:
    """A volume that nothing charges, and backups whose plan has no price for them."""
    host = successor
    acme = host.customer("20.00")
    host.create_vps(acme, host.plan("7.30"), "web", backup_frequency="weekly")
    host.adopt(billable_statuses=("*",))
    fleet = host.fleet
    assert fleet is not None
    fleet.conn.execute(
        "create table volumes (id uuid default gen_random_uuid(), organization_id uuid, label text, hourly_price numeric,"
        " created_at timestamptz default now()); create table volume_billing (volume_id uuid, billing_period_end timestamptz);"
    )
    fleet.conn.execute(
        "insert into volumes (organization_id, label, hourly_price) values (%s, 'data', 0.01)", (acme,)
    )

    with snapshot(fleet.conninfo) as connection:
        leaks = find_leaks(connection, fleet.terms)

    assert {("volume", "data", "7.30"), ("backups without a price", "web", None)} == {
        (str(one.reason), one.label, str(one.monthly) if one.monthly is not None else None)
        for one in leaks.leaks
    }
