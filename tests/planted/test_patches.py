"""The planted bugs stay bugs of the product as it is: each patch applies, changes something and says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.planted.patches import PATCHES, copy_of_sources, does_not_apply


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_applies_and_is_explained(name: str, tmp_path: Path) -> None:
    """A patch that no longer applies is a bug that is no longer looked for."""
    sources = copy_of_sources(tmp_path)

    assert "" == does_not_apply(name, sources), "./dev planted --help says how to renew it"
    text = PATCHES[name].read_text()
    for path in re.findall(r"^\+\+\+ b/(\S+\.py)$", text, re.MULTILINE):
        compile((tmp_path / path).read_text(), path, "exec")
    opening = text.split("diff --git")[0]
    assert "Written by" in opening
    assert "Revealed by" in opening


def test_there_are_enough_of_them() -> None:
    """A dozen at least, numbered once each."""
    assert len({name[:2] for name in PATCHES}) == len(PATCHES) >= 12
