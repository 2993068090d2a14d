"""The list of what the tests leave uncovered: a file may miss as much as is written there, and no more."""

from __future__ import annotations

import pytest
from tools.test_coverage import (
    ALLOWANCES,
    ROOT,
    Allowance,
    Missed,
    complaints,
    missed_in,
    read_allowances,
    write_allowances,
)

ONE = Missed((3, 7), ((3, 5),))
MANY = Missed(tuple(range(1, 10)), ((3, 5), (3, 7), (5, 7), (7, 9), (7, 11)))


@pytest.mark.parametrize(
    ("allowed", "complained"),
    [
        ({"a.py": Allowance(9, 5)}, False),
        ({"a.py": Allowance(6, 2)}, False),
        ({"a.py": Allowance(5, 5)}, True),
        ({"a.py": Allowance(9, 1)}, True),
        ({}, True),
    ],
)
def test_a_file_may_miss_what_it_is_allowed(allowed: dict[str, Allowance], complained: bool) -> None:
    """Lines and branches are counted apart, three more of each are borne, and a file that is not listed has no allowance."""
    said = list(complaints({"a.py": MANY}, allowed))
    assert complained == bool(said)
    assert all("a.py: 9 lines and 5 branches" in one and "branches 3 to 5, 3 to 7" in one for one in said)
    assert [] == list(complaints({"a.py": ONE}, {}))


def test_writing_the_list_keeps_the_reasons_and_drops_what_is_covered() -> None:
    """What is written is read again as it was."""
    before = {"a.py": Allowance(5, 5, "only a kernel without memory does that"), "b.py": Allowance(1, 0)}
    text = write_allowances({"b.py": Missed((), ()), "a.py": ONE}, before)
    assert {"a.py": Allowance(2, 1, "only a kernel without memory does that")} == read_allowances(text)


def test_a_line_that_is_no_allowance_is_refused() -> None:
    """Rather than leave a file without a bound."""
    with pytest.raises(ValueError, match=r"not FILE LINES BRANCHES REASON: a\.py many 0"):
        read_allowances("# heading\n\na.py many 0\n")


def test_only_files_of_the_package_count() -> None:
    """Copies of it that a test has made elsewhere are not its source."""
    inside, outside = str(ROOT / "src" / "x.py"), "/somewhere/src/x.py"
    nothing = {"missing_lines": [3, 7], "missing_branches": [[3, 5]]}
    assert {"src/x.py": ONE} == missed_in({"files": {inside: nothing, outside: nothing}})


def test_every_file_of_the_list_exists() -> None:
    """A file that was renamed or deleted takes its line along."""
    allowed = read_allowances(ALLOWANCES.read_text()) if ALLOWANCES.exists() else {}
    assert [] == [file for file in allowed if not (ROOT / file).exists()]
