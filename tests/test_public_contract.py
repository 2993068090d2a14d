"""The public names: verbs, flags, settings, exit codes, JSON keys, paths, tables and the Python interface.

They may be extended and never renamed or removed: users, scripts and the host application rely on them. Each test compares what
has to be there with what is there, so an addition needs no change here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from tests.command import Command

import containerstacks_billing
from containerstacks_billing import errors
from containerstacks_billing.cli import app
from containerstacks_billing.settings import KEYS, default_text

FLAGS = {
    "config show": "--json",
    "daemon": "--interval",
    "db psql": "",
    "db start": "",
    "db status": "--json",
    "db stop": "",
    "doctor": "--json",
    "drill": "--json --seconds --seed",
    "events": "--dead --json --kind --limit --organization",
    "events deliver": "--json",
    "events retry": "--dead",
    "events test": "--json",
    "grants": "--read-only --role",
    "migrate": "--dry-run --json --status",
    "prices list": "--json",
    "prices set": "--base --correct --dry-run --from --json --markup --reason --yes",
    "quarantine": "--json --limit",
    "reconcile": "--accept --check --dry-run --json --reason --restore --yes",
    "release": "--all --by --cap --charge --dry-run --instance --json --organization --passed-over --reason --waive --yes",
    "run": "--all --dry-run --json --organization --wait",
    "runs": "--json --limit",
    "runways": "--below --json --limit",
    "serve": "--host --port",
    "service install": "--app --create-user --dev --dry-run --user --yes",
    "service show": "--app --json",
    "service uninstall": "--app --dry-run",
    "status": "--json --watch",
    "token create": "--days --json --never-expires",
    "token list": "--json",
    "token revoke": "--json",
    "up": "--no-history --once --port",
    "verify": "--json --organization",
    "why": "--at --customer --json",
}
GLOBAL_FLAGS = {"--env-file", "--database-url", "--log-level"}
SETTINGS = {
    "DATABASE_URL": None,
    "BILLING_INTERVAL_MINUTES": "60",
    "LOG_LEVEL": "info",
    "FAILOVER_AFTER_MINUTES": "90",
    "HEARTBEAT_SECONDS": "60",
    "BILLING_WORKERS": "2",
    "BILLABLE_STATUSES": "running",
    "TRANSIENT_STATUSES": "booting,rebooting,shutting_down,migrating,resizing,rebuilding,restoring,cloning",
    "HOURS_PER_MONTH": "730",
    "PARTIAL_HOUR": "prorate",
    "CREATION_FEE": "extra",
    "CURRENCY": "USD",
    "MAX_CATCH_UP_HOURS": "72",
    "BRAKE_FACTOR": "3",
    "SHRINK_BRAKE": "off",
    "BUILT_IN_BILLING": "auto",
    "HOST": "127.0.0.1",
    "PORT": "3001",
    "ADMIN_TOKEN": None,
    "JWT_SECRET": None,
    "WEBHOOK_URL": None,
    "HEARTBEAT_URL": None,
    "HEARTBEAT_STEPS": "off",
    "WEBHOOK_SECRET": None,
}
PATHS = {
    "/api/billing/runs",
    "/api/billing/summary",
    "/api/health",
    "/api/health/billing-daemon",
    "/healthz",
    "/metrics",
    "/readyz",
}
TABLES = {
    "billing_daemon_status": "daemon_instance_id status last_run_at last_run_success instances_billed total_amount total_hours"
    " error_message started_at heartbeat_at metadata created_at updated_at",
    "billing_leases": "name holder fencing_token nonce acquired_at renewed_at expires_at",
    "billing_runs": "id outcome trigger holder as_of started_at finished_at instances_billed hours amount",
    "plan_price_versions": "plan_id base_price markup_price valid_from valid_to",
    "vps_billing_cycles": "vps_instance_id organization_id billing_period_start billing_period_end hourly_rate total_amount"
    " status payment_transaction_id metadata run_id",
    "schema_migrations": "version name checksum applied_at",
}


def flags_of(command: click.Command, path: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Return the long flags of every verb by its words."""
    options = (one for one in command.params if isinstance(one, click.Option))
    found = {" ".join(path): {name for one in options for name in one.opts if name.startswith("--")}}
    if isinstance(command, click.Group):
        for name, verb in command.commands.items():
            found |= flags_of(verb, (*path, name))
    return found


def test_verbs_and_flags_are_there() -> None:
    """A script that was written for an earlier version starts every verb with every flag."""
    found = flags_of(app)
    missing = {verb: set(flags.split()) - found.get(verb, set()) for verb, flags in FLAGS.items()}
    assert {} == {verb: flags for verb, flags in missing.items() if flags or verb not in found}
    assert GLOBAL_FLAGS <= found[""]


def test_settings_keep_their_names_and_defaults() -> None:
    """A `.env` means the same after an update."""
    assert SETTINGS == {key: default_text(key) for key in KEYS if key in SETTINGS}


def test_exit_codes_keep_their_meaning() -> None:
    """Service units and cron jobs decide by them."""
    codes = {
        errors.ConfigurationError: 78,
        errors.SchemaMismatch: 78,
        errors.RightsMissing: 78,
        errors.DatabaseUnavailable: 75,
        errors.LoginRefused: 75,
        errors.LeaseNotObtained: 75,
        errors.WorkFailed: 1,
        errors.InvariantBroken: 1,
    }
    assert codes == {kind: kind.exit_code for kind in codes}


def test_paths_are_served() -> None:
    """The host application's own pages and monitoring ask them."""
    document = json.loads((Path(__file__).parent.parent / "docs" / "openapi.json").read_text())
    assert set() == PATHS - document["paths"].keys()


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_there(table: str, database: str) -> None:
    """Operators' queries, and those of the host application, name them."""
    with psycopg.connect(database) as conn:
        found = {
            name
            for (name,) in conn.execute(
                "select column_name from information_schema.columns where table_name = %s", [table]
            )
        }
    assert set() == set(TABLES[table].split()) - found


DOCUMENTS = {
    (
        "run",
    ): "runId outcome trigger asOf instancesBilled hours amount pastDueInstances quarantinedInstances heldInstances"
    " batches durationSeconds",
    ("verify",): "ok checks discrepancies",
    ("status",): "biller",
    ("runs",): "runs",
    ("reconcile",): "items settled",
}


@pytest.mark.parametrize("arguments", DOCUMENTS, ids=" ".join)
def test_documents_keep_their_keys(arguments: tuple[str, ...], database: str, command: Command) -> None:
    """What `--json` writes is one document, and programs read these keys."""
    done = command(*arguments, "--json", environment={"DATABASE_URL": database})
    document: Any = json.loads(done.stdout)
    assert set() == set(DOCUMENTS[arguments].split()) - document.keys()


def test_the_python_interface_is_importable() -> None:
    """An application that embeds built-in billing imports two names of the package itself."""
    assert callable(containerstacks_billing.embed)
    assert callable(containerstacks_billing.BuiltInBilling)
    with pytest.raises(AttributeError, match="no attribute 'embedd'"):
        _ = containerstacks_billing.embedd
