"""Whether the process of a status row is known to be gone, from what it wrote about itself."""

from __future__ import annotations

from typing import Any

import pytest

from containerstacks_billing.identity import is_known_to_be_gone, process_facts


@pytest.mark.parametrize(
    ("changed", "without", "gone"),
    [
        ({}, (), False),
        ({"start_ticks": 1}, (), True),
        ({"start_ticks": 1}, ("boot_id",), True),
        ({"start_ticks": 1}, ("machine",), True),
        ({"start_ticks": 1}, ("boot_id", "machine"), False),
        ({"start_ticks": 1, "hostname": "elsewhere"}, (), False),
        ({"start_ticks": 1, "machine": "a clone of this one"}, (), False),
        ({"start_ticks": 1, "pid_namespace": "pid:[7]"}, (), False),
        ({"pid": 2**22 + 1}, (), True),
        ({"boot_id": "the boot before"}, (), True),
        ({"boot_id": "another machine"}, ("machine",), False),
        ({"start_ticks": "x"}, (), False),
    ],
)
def test_a_process_is_gone_only_where_that_can_be_known(
    changed: dict[str, Any], without: tuple[str, ...], gone: bool
) -> None:
    """The same host, the same numbers of processes, and another start or another boot; all else is not known."""
    facts = {key: value for key, value in {**process_facts(), **changed}.items() if key not in without}
    assert gone is is_known_to_be_gone(facts)
