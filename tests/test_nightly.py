"""The nightly run: what it writes into the document, and that a part which failed or is missing is never passed over."""

from __future__ import annotations

import pytest
from tools.nightly import BEGIN, DOCUMENT, END, PARTS, Part, run, table, written


def part(program: str, needs: tuple[str, ...] = ()) -> Part:
    """A part that runs a program and finds as many kills as it prints."""
    return Part("kills", f"-c {program}", lambda output: f"{int(output):,} kills", needs=needs)


def test_a_clean_part_is_a_row_with_its_figures() -> None:
    """Figures, minutes, and nothing charged twice, lost or adrift."""
    row = run(part("print(12345)"), 7, 1)
    assert ("0/0/0", False) == (row.found, row.failed)
    assert "| kills | `python -c print(12345)` |  | 12,345 kills, 0.0 min | 0/0/0 |" == row.line()


@pytest.mark.parametrize("program", ["exit(1)", "print()"])
def test_a_part_that_fails_or_says_nothing_is_named_with_its_output(program: str) -> None:
    """An exit code of 0 without figures is no success either."""
    row = run(part(program), 7, 1)
    assert (True, True) == (row.failed, "build/nightly/kills.txt" in row.found)


@pytest.mark.parametrize(("ci", "failed"), [("", False), ("1", True)])
def test_a_missing_program_skips_its_part_but_not_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, failed: bool
) -> None:
    """The row says what is missing."""
    monkeypatch.setenv("CI", ci)
    row = run(part("print(1)", ("no-such-program",)), 7, 1)
    assert ("skipped: no-such-program is missing", failed) == (row.done, row.failed)


def test_the_table_replaces_what_stands_between_the_markers() -> None:
    """The rest of the document stays, and one without markers is refused."""
    content = table([run(part("print(1)"), 7, 1)])
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert f"before\n{BEGIN}\n{content}\n{END}\nafter\n" == written(document, content)
    assert content.splitlines()[2].startswith("| kills |")
    with pytest.raises(ValueError, match="no place for the table"):
        written("before\nafter\n", content)


def test_the_document_has_a_place_for_the_table() -> None:
    """And every part has a name of its own, by which --only chooses it."""
    assert written(DOCUMENT.read_text(), "x") != DOCUMENT.read_text()
    assert len(PARTS) == len({part.name for part in PARTS})
