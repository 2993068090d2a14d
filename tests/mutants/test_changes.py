"""The wrong changes themselves: each changes something at the place that it names, and what is known of them is true."""

from __future__ import annotations

import ast

import pytest
from tests.mutants.__main__ import equivalents
from tests.mutants.changes import Change, python_changes, sql_changes
from tests.planted.patches import ROOT


@pytest.fixture(scope="module")
def changes() -> list[Change]:
    return [*python_changes(ROOT), *sql_changes(ROOT)]


def test_a_change_changes_what_it_names(changes: list[Change]) -> None:
    """And there are hundreds of each language, so that a sample means something."""
    texts = {change.path: (ROOT / change.path).read_text() for change in changes}
    for change in changes:
        text = texts[change.path]
        assert text[change.start : change.end] != change.after
        assert change.around in text.splitlines()[change.line - 1]
        if change.path.endswith(".py"):
            ast.parse(text[: change.start] + change.after + text[change.end :])

    assert 300 < sum(change.path.endswith(".py") for change in changes)
    assert 300 < sum(change.path.endswith(".sql") for change in changes)


def test_what_is_known_to_change_nothing_is_a_change(changes: list[Change]) -> None:
    """An entry for a line that is gone would excuse a survivor that nobody has looked at."""
    assert set() == set(equivalents()) - {change.key for change in changes}
