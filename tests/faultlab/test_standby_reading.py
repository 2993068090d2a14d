"""Explanations on a standby: a server that cannot write answers what it knows, from one snapshot."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from tests.faultlab.primary_and_standby import FailoverPair
from tests.faultlab.replica import Pair, scratch

from containerstacks_billing.cli import app
from containerstacks_billing.database.connection import connect
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.readers import second_reader
from containerstacks_billing.verification.verify import verify


@pytest.mark.slow
def test_every_explanation_answers_on_a_standby(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A support agent reads from the replica and puts no load on the primary."""
    with scratch() as directory, Pair(directory) as pair:
        migrate(pair.primary.conninfo())
        pair.replicate()
        failover_pair = FailoverPair(pair)
        failover_pair.bill()
        pair.follow()
        organization = failover_pair.organizations[0]
        [entry] = failover_pair.fleet.rows(
            "select id from payment_transactions where organization_id = %s", organization
        )
        failover_pair.conn.close()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DATABASE_URL", pair.standby.conninfo())

        explained = CliRunner().invoke(app, ["why", str(entry.id), "--json"])
        assert (0, True) == (explained.exit_code, json.loads(explained.stdout)["addsUp"])
        shown = CliRunner().invoke(app, ["statement", str(organization), "--month", "2026-03", "--json"])
        assert (0, []) == (shown.exit_code, json.loads(shown.stdout)["findings"])
        leaking = CliRunner().invoke(app, ["leaks", "--tolerance", "1000", "--json"])
        assert (0, "0.00") == (leaking.exit_code, json.loads(leaking.stdout)["billedForNothingMonthly"])
        audited = CliRunner().invoke(app, ["audit", "--json"])
        assert (0, []) == (audited.exit_code, json.loads(audited.stdout)["organizations"])
        refused = CliRunner().invoke(app, ["statement", "--all", "--month", "2026-03", "--issue", "--yes"])
        assert "Not issued" in refused.stdout


@pytest.mark.slow
def test_the_books_are_compared_on_a_standby_by_two_readers() -> None:
    """Both read the snapshot that one exported there, and the hours of the primary are found right."""
    with scratch() as directory, Pair(directory) as pair:
        migrate(pair.primary.conninfo())
        pair.replicate()
        failover_pair = FailoverPair(pair)
        failover_pair.bill()
        pair.follow()
        failover_pair.conn.close()
        standby = pair.standby.conninfo()
        with connect(standby, purpose="reading") as first:
            first.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with first.transaction(), second_reader(first, standby) as second:
                assert second is not None
                assert (True,) == second.execute("select pg_is_in_recovery()").fetchone()
        verification = verify(standby, shared_from=0)
        assert () == verification.discrepancies
        assert verification.checks[0].examined
