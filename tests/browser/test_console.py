"""The console in a browser: a support case from sign-in to decision, and every page looked at by axe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.browser import scenes
from tests.browser.test_status_page import findings
from tests.fleet import Fleet
from tests.web.client import serving

Visit = Callable[..., Any]
HOSTILE = f"Acme\u202e{scenes.MARKUP}"


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    """Two customers with hostile names: one is billed for three hours, the other has 200 hours that are held."""
    fleet = Fleet(conn)
    plan = fleet.plan("730.00")
    fleet.instance(fleet.organization("500.00", name=HOSTILE), plan, label=scenes.LABEL)
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    fleet.instance(fleet.organization("900.00", name="Late Ltd"), plan, label="late-01")
    fleet.hours(200)
    fleet.bill()
    return fleet


def test_a_support_case_from_sign_in_to_decision(fleet: Fleet, visit: Visit) -> None:
    """Find a customer, explain a debit, download the statement, release held hours with a reason, see the decision."""
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.open("/status/organizations")
        page.get_by_label("Admin token").fill("configured-admin-token-of-the-test")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Name, or an id of anything").fill("acme")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="Acme").click()

        page.get_by_role("region", name="Ledger").get_by_role("link").last.click()
        page.get_by_role("link", name="Why").last.click()
        assert "730.00 a month / 730 hours" in page.get_by_text("a month").last.inner_text()
        page.get_by_role("navigation", name="Where").get_by_role("link", name="Its organization").click()
        with page.expect_download() as download:
            page.locator("#statements").get_by_role("link", name="CSV").first.click()
        assert b"organization" in download.value.path().read_bytes().lower()

        page.get_by_role("link", name="Decisions", exact=True).click()
        page.get_by_role("link", name="Decide about late-01").click()
        page.get_by_label("Charge the last hours only").check()
        page.get_by_label("Hours to keep").fill("24")
        page.get_by_label("Reason").fill("outage of our own")
        page.get_by_role("button", name="Preview").click()
        assert page.get_by_text("24.00 USD").first.is_visible()
        assert [] == fleet.rows("select from billing_decisions")
        page.get_by_role("button", name="Decide so").click()
        taken = page.get_by_role("region", name="Decisions that were taken")
        assert "outage of our own" in taken.inner_text()
        assert "ADMIN_TOKEN" in taken.inner_text()
    assert [("cap", "outage of our own")] == [
        (row.decision, row.reason) for row in fleet.rows("select decision, reason from billing_decisions")
    ]


def test_every_page_is_accessible_and_keeps_its_width(fleet: Fleet, visit: Visit) -> None:
    """Light and dark, 1280 and 360 wide, and printed: axe finds nothing, nothing overflows, no text becomes markup."""
    [ids] = fleet.rows(
        "select c.organization_id, c.vps_instance_id, c.id as charge, c.payment_transaction_id as entry"
        " from vps_billing_cycles c join vps_instances i on i.id = c.vps_instance_id where label <> 'late-01' limit 1"
    )
    [late] = fleet.rows("select id from vps_instances where label = 'late-01'")
    pages = {
        "charts": "charts?span=7d",
        "charts-year": "charts?span=12m",
        "runs": "runs",
        "runs-none": "runs?outcome=failed",
        "run": "runs/1",
        "organizations": "organizations",
        "organization": f"organizations/{ids.organization_id}",
        "instance": f"instances/{ids.vps_instance_id}?days=30",
        "instance-held": f"instances/{late.id}?days=30",
        "charge": f"charges/{ids.charge}",
        "entry": f"entries/{ids.entry}",
        "decisions": "decisions",
        "release": f"release?instance={late.id}",
        "release-run": "release-run",
        "prices": "prices",
        "events": "deliveries",
        "verification": "verification",
    }
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.sign_in()
        for name, path in pages.items():
            page = one.open(f"/status/{path}")
            for scheme, width, media in (
                ("light", 1280, "screen"),
                ("dark", 360, "screen"),
                ("light", 800, "print"),
            ):
                page.emulate_media(color_scheme=scheme, media=media, reduced_motion="reduce")
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
                one.picture(f"console-{name}-{scheme}-{width}-{media}")
                if media == "screen":
                    assert [] == findings(page), name
        assert page.evaluate("window.broken === undefined")


def test_the_keyboard_operates_a_page(fleet: Fleet, visit: Visit) -> None:
    """Search is reached with Tab alone, and Enter opens what it finds."""
    with serving(fleet.conninfo) as address, visit(address) as one:
        one.sign_in()
        page = one.open("/status/organizations")
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "q":
                break
        page.keyboard.type("late")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=late**")
        page.get_by_role("link", name="Late Ltd").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/organizations/*-*")
        assert "Late Ltd" == page.locator("h1").inner_text()


def test_pages_need_no_script(fleet: Fleet, visit: Visit) -> None:
    """Without a script every page has all it has with one."""
    with serving(fleet.conninfo) as address, visit(address, java_script_enabled=False) as one:
        page = one.page
        page.goto(f"{one.address}/status/sign-in")
        page.get_by_label("Admin token").fill("configured-admin-token-of-the-test")
        page.get_by_role("button", name="Sign in").click()
        page.goto(f"{one.address}/status/charts?span=24h")
        assert page.get_by_role("img", name="Instances billed").is_visible()
