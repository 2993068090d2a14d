"""Alert rules and the dashboard: they fire when they should, speak of metrics that exist, and lead to a section that helps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.browser import scenes
from tests.clock import settings_of
from tests.web.client import client_of

from containerstacks_billing.charging.run import terms_of
from containerstacks_billing.explain.leak_reports import record_leaks
from containerstacks_billing.explain.leaks import find_leaks
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.verification.results import record
from containerstacks_billing.verification.schemas import VerificationDocument
from containerstacks_billing.verification.verify import verify

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
RUNBOOK = ROOT / "docs" / "runbook.md"
METRIC = re.compile(r"\bcontainerstacks_billing_\w+")


def promtool(*arguments: str) -> None:
    """Run Debian's promtool, which needs no server."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stdout + done.stderr)


@pytest.fixture
def metrics(conn: psycopg.Connection[Any]) -> set[str]:
    """The names of all metrics, while a run is under way and after one of each, verify and leaks, so that none is missing."""
    fleet = scenes.fleet_of(conn)
    scenes.in_progress(fleet)
    fleet.conn.execute("update billing_runs set past_due_amount = 0 where outcome is not null")
    record(fleet.conninfo, VerificationDocument.of(verify(fleet.conninfo)), "test")
    with snapshot(fleet.conninfo) as connection:
        record_leaks(fleet.conninfo, find_leaks(connection, terms_of(settings_of(fleet.conninfo))), "test")
    with client_of(fleet.conninfo) as client:
        return set(METRIC.findall(client.get("/metrics").text))


def test_the_rules_pass_their_own_tests() -> None:
    """Each rule fires when it should, and not a minute earlier; on a good day all of them are silent."""
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(RULES.with_name("alerts_test.yml")))


@pytest.mark.parametrize(
    "file", [RULES, RULES.with_name("alerts_test.yml"), DASHBOARD], ids=lambda file: file.name
)
def test_every_metric_exists(file: Path, metrics: set[str]) -> None:
    """An alert over a metric that was renamed never fires, and the failure goes unnoticed."""
    assert set() == set(METRIC.findall(file.read_text())) - metrics


def test_every_alert_leads_to_a_section_of_the_runbook() -> None:
    """Every alert links to a runbook section with meaning and actions."""
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    sections = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    text = RULES.read_text()
    links = re.findall(r"runbook_url: docs/runbook\.md#(\S+)", text)
    assert text.count("- alert: ") == len(links)
    assert set() == set(links) - sections


def test_the_dashboard_is_whole() -> None:
    """Every panel has its own number, a place of its own and a question."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert all(target["expr"] for target in panel["targets"])
        assert {"type": "prometheus", "uid": "${datasource}"} == panel["datasource"]
