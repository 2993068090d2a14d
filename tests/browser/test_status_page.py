"""The status page in a browser: every state, light and dark, wide and narrow, with a script and without."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.browser import scenes
from tests.browser.conftest import WIDTHS
from tests.web.client import ADMIN_TOKEN, make_token, serving

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
HEADLINES = {
    "first-run": "Waiting for the first run",
    "on-duty": "The billing daemon is on duty",
    "all-well": "The billing daemon is on duty",
    "in-progress": "The billing daemon is billing now",
    "failing": "The billing daemon needs attention",
    "held": "The billing daemon needs attention",
    "silent": "The billing daemon is silent",
    "stopped": "The billing daemon is stopped",
    "without-daemon": "Built-in billing is on duty",
    "host-bills": "The host application bills by itself",
    "taken-over": "Built-in billing has taken over",
    "nobody": "Nobody is billing",
}
Visit = Callable[..., Any]


def findings(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA and its own best practices."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    result = page.evaluate("rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", rules)
    return [
        f"{found['id']}: {node['target']} {node['failureSummary']}"
        for found in result["violations"]
        for node in found["nodes"]
    ]


@pytest.mark.parametrize("scene", scenes.SCENES)
def test_every_state_is_designed_and_accessible(
    scene: str, conn: psycopg.Connection[Any], visit: Visit
) -> None:
    """Light and dark, 1280 and 375 wide, for everybody and for admins: nothing overflows, and axe finds nothing."""
    fleet = scenes.fleet_of(conn)
    scenes.SCENES[scene](fleet)
    with serving(fleet.conninfo) as address, visit(address) as one:
        for viewer in ("public", "admin"):
            page = one.sign_in() if viewer == "admin" else one.open()
            for scheme in ("light", "dark"):
                for name, width in WIDTHS.items():
                    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                    page.set_viewport_size({"width": width, "height": 900})
                    page.locator("[data-state=live]").wait_for()

                    assert HEADLINES[scene] == page.locator("h1").inner_text()
                    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                    assert [] == findings(page)
                    one.picture(f"{scene}-{viewer}-{scheme}-{name}")


def test_a_database_that_is_away_has_a_page_too(visit: Visit) -> None:
    """The biller is unknown, and the page says so with 503; it has no live updates."""
    with (
        serving("host=127.0.0.1 port=1 dbname=none") as address,
        visit(address, expected="status of 503") as one,
    ):
        for scheme in ("light", "dark"):
            for name, width in WIDTHS.items():
                one.page.emulate_media(color_scheme=scheme)
                one.page.set_viewport_size({"width": width, "height": 900})
                page = one.open()
                page.locator("[data-state=lost]").wait_for()
                assert "No data" == page.locator("#live-word").inner_text()
                assert "Billing cannot be seen" == page.locator("h1").inner_text()
                assert [] == findings(page)
                one.picture(f"database-away-public-{scheme}-{name}")


def test_a_connection_that_is_lost_takes_the_colours_away(
    conn: psycopg.Connection[Any], visit: Visit
) -> None:
    """What was green may be so no more; the page says since when, and nothing of it is cut off."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    server = ExitStack()
    address = server.enter_context(serving(fleet.conninfo))
    with visit(address, expected="ERR_") as one, server:
        page = one.sign_in()
        page.locator("[data-state=live]").wait_for()
        green = page.evaluate("getComputedStyle(document.querySelector('.badge')).color")
        page.evaluate("document.getElementById('lost').dataset.patience = 0")
        server.close()
        page.locator("[data-state=lost]").wait_for()
        assert page.get_by_text("The server does not answer.").is_visible()
        assert green != page.evaluate("getComputedStyle(document.querySelector('.badge')).color")
        assert "Connection lost" in page.title()
        for scheme in ("light", "dark"):
            for name, width in WIDTHS.items():
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                assert [] == findings(page)
                one.picture(f"connection-lost-admin-{scheme}-{name}")


def test_forced_colors_keep_the_legend(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """With the colours of the system each mark is still distinguishable."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with serving(fleet.conninfo) as address, visit(address, forced_colors="active") as one:
        page = one.sign_in()
        page.locator("[data-state=live]").wait_for()
        colours = page.evaluate(
            "[...document.querySelectorAll('.swatch')].map(one => getComputedStyle(one).backgroundColor)"
        )
        assert 3 == len(set(colours))
        one.picture("forced-colors-admin-wide")


def test_everybody_sees_the_state_and_admins_see_figures_and_names(
    conn: psycopg.Connection[Any], visit: Visit
) -> None:
    """Amounts, customers and process names are for admins; that billing works is public."""
    fleet = scenes.fleet_of(conn)
    scenes.failing(fleet)
    secrets = ("4,2", "USD", "Acme", "Northwind", "billing-1-4711", "no space left", "web-01", "Nebula")
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.open()
        public = page.content()
        assert [] == [secret for secret in secrets if secret in public]
        assert page.get_by_role("heading", name="The last run failed").is_visible()

        page = one.sign_in()
        admin = page.content()
        assert [] == [secret for secret in secrets if secret not in admin]
        cookie = page.context.cookies()[0]
        assert (True, "Strict", "/status") == (cookie["httpOnly"], cookie["sameSite"], cookie["path"])
        assert ADMIN_TOKEN not in str(cookie)

        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("link", name="Sign in").first.wait_for()
        assert "Acme" not in page.content()
        assert [] == page.context.cookies()


def test_a_wrong_token_is_refused_and_counted(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """The page counts failures where the API does: after ten the address waits, and a right token still gets in."""
    with serving(scenes.fleet_of(conn).conninfo) as address, visit(address) as one:
        page = one.sign_in("a-wrong-token")
        assert "The token is not valid." == page.get_by_role("alert").inner_text()
        assert [] == findings(page)
        one.picture("sign-in-refused-light-wide")
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 375, "height": 740})
        one.picture("sign-in-refused-dark-narrow")
        for _ in range(9):
            one.sign_in("another-wrong-token")
        page = one.sign_in("a-third-wrong-token")
        assert "Too many failed attempts from this address." == page.get_by_role("alert").inner_text()
        one.sign_in().locator("[data-state=live]").wait_for()
        # The browser reports refused forms by itself.
        assert one.problems
        assert all("status of 401" in problem or "status of 429" in problem for problem in one.problems)
        one.problems.clear()


def test_a_form_of_another_site_is_not_accepted(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """It neither signs in nor signs out."""
    fleet = scenes.fleet_of(conn)
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.sign_in()
        root = one.address
        foreign = {"Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"}
        for path, form in (("sign-in", {"token": ADMIN_TOKEN}), ("sign-out", {"csrf": "guess"})):
            answer = page.request.post(f"{root}/status/{path}", form=form, headers=foreign, max_redirects=0)
            assert (403, "set-cookie" in answer.headers) == (answer.status, False)
        answer = page.request.post(f"{root}/status/sign-out", form={"csrf": "guess"}, max_redirects=0)
        assert 403 == answer.status
        assert one.open().get_by_role("button", name="Sign out").is_visible()


def test_a_revoked_token_ends_its_session(
    conn: psycopg.Connection[Any], visit: Visit, monkeypatch: Any
) -> None:
    """Revoking works on browsers that are signed in already, and the open page loses its figures."""
    monkeypatch.setattr("containerstacks_billing.web.sessions.RECOGNISE_AGAIN_SECONDS", 0.0)
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    token = make_token(conn)
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.sign_in(token)
        page.get_by_text("Acme GmbH").first.wait_for()
        conn.execute("update billing_tokens set revoked_at = billing_clock()")
        page.get_by_role("link", name="Sign in").first.wait_for()
        assert "Acme" not in page.content()


def test_news_appear_without_a_reload(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """A run begins and goes on, the daemon falls silent: the page says so by itself, and keeps its place."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.sign_in()
        page.locator("[data-state=live]").wait_for()
        page.evaluate("window.stays = true")
        page.get_by_text("As a table").click()
        page.get_by_text("As a table").focus()
        assert [] == findings(page)
        one.picture("runs-as-a-table-light-wide")

        scenes.run(fleet, fleet.now, None, batches=2)
        scenes.lease(fleet)
        page.get_by_text("The billing daemon is billing now").first.wait_for()
        assert "33 %" in page.locator(".progress").inner_text()
        conn.execute("update billing_runs set batches = 5 where outcome is null")
        page.get_by_text("83 %").wait_for()
        assert "The billing daemon is billing now" == page.locator("#said").inner_text()

        conn.execute(
            "update billing_runs set outcome = 'completed', finished_at = started_at where outcome is null"
        )
        conn.execute("update billing_leases set expires_at = '-infinity'")
        fleet.hours(5)
        page.get_by_text("Nobody is billing").first.wait_for()
        assert page.evaluate("window.stays && document.querySelector('#runs-table').open")
        assert "As a table" == page.evaluate("document.activeElement.textContent")


def test_it_is_complete_without_a_script(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """Times are UTC, ages stand still, the page reloads by itself, and signing in works."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with serving(fleet.conninfo) as address, visit(address, java_script_enabled=False) as one:
        page = one.page
        page.goto(f"{one.address}/status/sign-in")
        page.get_by_label("Admin token").fill(ADMIN_TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Acme GmbH").first.wait_for()
        text = page.locator("main").inner_text()
        for shown in (
            "41 s ago",
            "1:29:19",
            "19 min ago",
            "01 Mar 2026, 13:00 UTC",
            "in 40 min",
            "4,223.00",
        ):
            assert shown in text
        assert '<meta http-equiv="refresh" content="30">' in page.locator("noscript").first.inner_html()
        one.picture("on-duty-admin-without-script")


def test_times_are_the_viewers_and_utc_is_a_hover_away(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """13:00 UTC is 18:30 in Kolkata."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with serving(fleet.conninfo) as address, visit(address, timezone_id="Asia/Kolkata") as one:
        page = one.open()
        next_run = page.locator("time[data-show=instant][datetime='2026-03-01T13:00:00Z']")
        next_run.filter(has_text="18:30").wait_for()
        assert "2026-03-01 13:00:00 UTC" == next_run.get_attribute("title")
        assert "Asia/" in page.locator("footer").inner_text()


def test_labels_and_errors_are_inert(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """Markup that customers put into names is shown and does nothing; what arrives by the stream neither."""
    fleet = scenes.fleet_of(conn)
    scenes.hostile(fleet)
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.sign_in()
        page.locator("[data-state=live]").wait_for()
        assert page.get_by_text(scenes.LABEL, exact=True).first.is_visible()
        assert scenes.MARKUP in page.locator("#error").inner_text()
        assert page.evaluate(
            "window.broken === undefined && document.querySelectorAll('main img').length === 0"
        )


def test_the_keyboard_reaches_everything(conn: psycopg.Connection[Any], visit: Visit) -> None:
    """The first tab skips to the content; the next ones go through what can be used, in order."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with serving(fleet.conninfo) as address, visit(address) as one:
        page = one.sign_in()
        page.locator("[data-state=live]").wait_for()
        reached = []
        pages = ["Overview", "Charts", "Organizations", "Runs", "Decisions", "Prices", "Events", "Verify"]
        for _ in range(2 + len(pages) + 1):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent.trim()"))
        assert ["Skip to the content", "Sign out", *pages] == reached[:-1]
        assert reached[-1].startswith("Run 1, 27 Feb 14:00 UTC: completed")
