"""Known vulnerabilities of locked dependencies: an index that does not answer is no good news."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tools.advisories import CLEAN, NOT_ASKED, VULNERABLE, judge

GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "X-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("packages", "code"),
    [
        ([GOOD], CLEAN),
        ([GOOD, BAD], VULNERABLE),
        ([BAD, UNKNOWN], VULNERABLE),
        ([GOOD, UNKNOWN], NOT_ASKED),
        ([UNKNOWN, UNKNOWN], NOT_ASKED),
        ([], NOT_ASKED),
    ],
)
def test_only_answers_about_every_package_are_clean(packages: list[dict[str, Any]], code: int) -> None:
    """An index that has no such data answers for none, and pip-audit calls that a success."""
    assert code == judge(json.dumps({"dependencies": packages}), "")[0]


def test_a_vulnerability_is_told_with_its_repair() -> None:
    """Package, version, name of the vulnerability, and the version that repairs it."""
    said = judge(json.dumps({"dependencies": [GOOD, BAD]}), "")[1]
    assert "bad 2.0: X-1 (repaired in 2.1)" == said[0]


@pytest.mark.parametrize("output", ["", "not JSON", "[]", "null", "{}"])
def test_no_document_means_not_asked(output: str) -> None:
    """Then the last line of stderr is the reason."""
    code, said = judge(output, "Traceback\nProxyError: refused\n")
    assert (NOT_ASKED, True) == (code, said[0].endswith(": ProxyError: refused"))
