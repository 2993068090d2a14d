"""The checks of tools/tidy.py find what they are there for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tools import retired_words, tidy


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty package in a repository of its own."""
    for room in ("charging", "cli", "pricing", "schema/tables"):
        (tmp_path / "src" / "containerstacks_billing" / room).mkdir(parents=True)
    (tmp_path / "src/containerstacks_billing/schema/__init__.py").touch()
    # A file that is imported by one of the offences, and imports it.
    (tmp_path / "src/containerstacks_billing/cli/main.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import containerstacks_billing.charging.self\n"
    )
    (tmp_path / "ARCHITECTURE.md").write_text("```\ncharging · cli · pricing · schema\n```\n")
    (tmp_path / "tests" / "reference").mkdir(parents=True)
    (tmp_path / "tests" / "model").mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


# A path, its content, and the words of the finding.
OFFENCES = [
    ("charging/long.py", "x = 1\n" * 351, "351 lines"),
    ("charging/utils.py", "", "says nothing"),
    ("charging/post.py", "# A child that is tethered.\n", "given up for: child of up"),
    ("pricing/post.sql", "-- Its closed stretches.\n", "given up for: usage segment"),
    ("pricing/post.py", "class Rehearsal: ...\n", "given up for: dry run"),
    (
        "charging/self.py",
        "def late() -> None:\n    from containerstacks_billing.charging import self\n    from containerstacks_billing.cli import main\n",
        "a circle of imports: containerstacks_billing.charging.self, containerstacks_billing.cli.main",
    ),
    ("charging/big.sql", "-- a line\n" * 5000, "charging:1: the room holds 100% of the lines"),
    ("pricing/price.py", "def apply(tariffs): ...\n", "our word for tariffs is hourly_rate"),
    ("pricing/price.py", "class OverdueCharge: ...\n", "our word for overdue is past_due"),
    ("charging/model.py", "start = datetime.now(UTC)\n", "comes from Clock"),
    ("charging/a.sql", "-- name: LockWallets\n-- Locks.\nSELECT 1\n", "not snake_case"),
    ("charging/a.sql", "-- name: lock_wallets\nSELECT 1\n", "does not say what it does"),
    ("charging/a.sql", "-- name: lock_wallets\n-- Locks.\nSELECT 1\n", "nothing uses this statement"),
    ("charging/a.sql", "-- part: payers\n-- Pay.\npayer AS (SELECT 1)\n", "no statement includes"),
    ("charging/a.sql", "SELECT now()\n", "billing_clock()"),
    ("charging/a.sql", "SELECT clock_timestamp()\n", "billing_clock()"),
    ("schema/tables/14_runs.sql", "-- Runs.\n", "called like"),
    ("schema/tables/014_runs.sql", "CREATE TABLE a ();\n", "without a comment"),
    ("../../tests/test_a.py", "import time\ntime.sleep(1)\n", "a test that sleeps"),
    ("../../tests/test_a.py", "eventually(lambda: time.monotonic() > until)\n", "a test that sleeps"),
    ("../../tests/test_a.py", "def test_a(): ...\n", "has no sentence"),
    ("../../tests/reference/a.py", "from containerstacks_billing import billing\n", "may not import"),
    ("../../tests/model/a.pml", "/* fence in batch.sql */\n", "no fence in batch.sql"),
    ("../../requirements.lock", "--find-links wheels\n", "download"),
    ("../../ARCHITECTURE.md", "```\ncharging · cli · pricing\n```\n", "the room schema is missing"),
    ("../../notes.md", f"see {Path.home()}/.notes\n", "path of one machine"),
]


@pytest.mark.parametrize(("path", "content", "words"), OFFENCES)
def test_an_offence_is_found(
    tree: Path, capsys: pytest.CaptureFixture[str], path: str, content: str, words: str
) -> None:
    """Each offence is found, in a tree that has nothing else wrong."""
    assert tidy.main(tree) == 0
    (tree / "src" / "containerstacks_billing" / path).resolve().write_text(content)
    assert tidy.main(tree) == 1
    assert words in capsys.readouterr().out


def test_honest_source_passes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Statements that are named, described and used, and a lease that asks the clock of the database."""
    charging = tree / "src" / "containerstacks_billing" / "charging"
    (charging / "lease.sql").write_text("-- name: renew\n-- Renews.\nSELECT clock_timestamp()\n")
    (charging / "lease.py").write_text('"""Leases; now() in a sentence."""\nRENEW = query("renew")\n')
    assert tidy.main(tree) == 0
    assert capsys.readouterr().out == ""


def test_a_retired_word_may_stand_as_often_as_allowed_and_allowances_only_fall(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three allowed, two there: they pass, and the list is lowered to two. A fourth is named with the count."""
    source = tree / "src" / "containerstacks_billing" / "pricing" / "price.py"
    allowances = tree / retired_words.ALLOWANCES
    allowances.parent.mkdir()
    allowances.write_text("  3  debt         pricing\n 10  set aside    cli\n")

    source.write_text("# A debt, and DEBTS.\n")
    assert tidy.main(tree) == 0
    assert retired_words.HEADING + "  2  debt         pricing\n" == retired_words.lowered(tree)

    source.write_text("# debt debt\n# debt debt\n")
    assert tidy.main(tree) == 1
    assert "debt stands 4 times in pricing, where 3 may remain" in capsys.readouterr().out
    assert retired_words.HEADING + "  3  debt         pricing\n" == retired_words.lowered(tree)
