"""A browser for the tests of the page, and what every page has to keep to.

Debian's chromium is driven; without it these tests are skipped. With --screenshots every page that is looked at is written
to build/screenshots, to be leafed through; a third of the time of these tests went into pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is missing: ./dev installs it")

from playwright.sync_api import Browser, Page, sync_playwright
from tests.daemons import PATIENCE_SECONDS
from tests.web.client import ADMIN_TOKEN

CHROMIUM = Path(shutil.which("chromium") or "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WIDTHS = {"wide": 1280, "narrow": 375}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    if not CHROMIUM.exists():
        pytest.skip("chromium is missing: apt-get install chromium fonts-dejavu-core")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE_SECONDS * 1000
        )
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page in its own browser profile, and what went wrong on it."""

    page: Page
    address: str
    with_pictures: bool = False
    problems: list[str] = field(default_factory=list)

    def open(self, path: str = "/status") -> Page:
        """Go to a page and wait until its script has run."""
        self.page.goto(self.address + path)
        self.page.evaluate("document.fonts.ready.then(() => true)")
        return self.page

    def sign_in(self, token: str = ADMIN_TOKEN) -> Page:
        """Sign in as people do, and wait for the page that answers."""
        self.open("/status/sign-in")
        self.page.get_by_label("Admin token").fill(token)
        with self.page.expect_navigation():
            self.page.get_by_role("button", name="Sign in").click()
        return self.page

    def picture(self, name: str) -> None:
        """Write a screenshot of the whole page, where they are wanted."""
        if self.with_pictures:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, animations="disabled")


@pytest.fixture
def visit(browser: Browser, pytestconfig: pytest.Config) -> Callable[..., Any]:
    """A function that opens a browser profile for an address; nothing may go wrong on its pages unless it is expected."""

    @contextmanager
    def begin(address: tuple[str, int], expected: str = "", **options: Any) -> Iterator[Visit]:
        root = f"http://{address[0]}:{address[1]}"
        settings = {
            "viewport": {"width": 1280, "height": 900},
            "locale": "en-GB",
            "timezone_id": "UTC",
            **options,
        }
        context = browser.new_context(**settings)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        one = Visit(page, root, pytestconfig.getoption("--screenshots"))
        page.on(
            "console",
            lambda message: (
                one.problems.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: one.problems.append(str(error)))
        page.on("request", lambda request: one.problems.append(f"asked {request.url}") if not request.url.startswith((root, "data:")) else None)  # fmt: skip
        try:
            yield one
        finally:
            page.goto("about:blank")
            context.close()
        unexpected = [problem for problem in one.problems if not (expected and expected in problem)]
        assert [] == unexpected

    return begin


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say where the screenshots are."""
    if terminalreporter.config.getoption("--screenshots"):
        terminalreporter.write_line(f"Screenshots: {SCREENSHOTS}")
