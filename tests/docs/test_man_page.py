"""The man page and the completion of shells: both come out of the command, and neither goes stale unnoticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tools import man_page

ROOT = man_page.PAGE.parents[2]


def test_it_says_what_the_command_says() -> None:
    """Every verb, option and setting; write it anew with `python -m tools.man_page`."""
    text = man_page.page()
    assert man_page.PAGE.read_text(encoding="utf-8") == text
    for section in ("NAME", "SYNOPSIS", "OPTIONS", "COMMANDS", "ENVIRONMENT", "EXIT STATUS", "FILES"):
        assert f".SH {section}\n" in text
    assert ".B MAX_CATCH_UP_HOURS\n" in text
    assert "/work" not in text


def test_readers_of_man_pages_have_nothing_to_object() -> None:
    """`man` without a warning, at 80 columns; mandoc's lint where it is there."""
    if shutil.which("man") is None:
        pytest.skip("man is missing: apt-get install man-db groff")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    shown = subprocess.run(
        ["man", "--warnings=w", "-P", "cat", "-l", man_page.PAGE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == shown.stderr
    assert "status --watch" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    if shutil.which("mandoc") is not None:
        subprocess.run(["mandoc", "-T", "lint", "-W", "error,stop", man_page.PAGE], check=True)


def test_the_wheel_brings_it(tmp_path: Path) -> None:
    """Installed where `man` looks: share/man of the environment."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert any(name.endswith(".data/data/share/man/man1/containerstacks-billing.1") for name in names)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("ver",), "verify"),
        (("service", "in"), "install"),
        (("run", "--d"), "--dry-run"),
        (("--da",), "--database-url"),
    ],
)
def test_bash_completes_verbs_and_options(typed: tuple[str, ...], offered: str) -> None:
    """What --install-completion sets up asks the command itself."""
    done = subprocess.run(
        [Path(sys.executable).with_name("containerstacks-billing")],
        env={
            "PATH": os.environ["PATH"],
            "_CONTAINERSTACKS_BILLING_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("containerstacks-billing", *typed)),
            "COMP_CWORD": str(len(typed)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert [offered] == done.stdout.split()
