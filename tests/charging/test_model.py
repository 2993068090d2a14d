"""The values of a run: what stands where nothing was said, and where the ranges end."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun, Terms
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.settings import Settings

NOBODY = UUID("00000000-0000-0000-0000-000000000000")
EVERYBODY = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")


def test_the_first_and_the_last_identifier_enclose_all_others() -> None:
    """An organization beyond either end would belong to no batch."""
    assert (NOBODY, EVERYBODY) == (FIRST_UUID, LAST_UUID)


def test_a_batch_is_a_slice_when_it_leaves_out_instances_at_either_end() -> None:
    """One that holds all instances of its organizations is none."""
    some = UUID(int=7)
    assert not Batch(1, some, some, 9).is_slice
    assert Batch(1, some, some, 9, first_instance=some).is_slice
    assert Batch(1, some, some, 9, last_instance=some).is_slice


def test_a_batch_is_ordinary_only_when_the_plan_says_so() -> None:
    """The short way of charging is for what is known to have one hour due."""
    assert not Batch(1, NOBODY, EVERYBODY, 9).is_ordinary


def test_a_batch_that_billed_nobody_billed_nothing() -> None:
    """Nothing is added to a run's sums."""
    nothing = BatchResult()
    assert (0, 0, 0) == (nothing.instances, nothing.hours, nothing.amount)


def test_a_run_begins_a_policy_only_when_it_was_asked_to() -> None:
    """Otherwise the terms of the run before go on."""
    assert not OpenRun(1, datetime(2026, 3, 1, tzinfo=UTC), Terms(), 1, NOBODY).begins_policy


def test_terms_are_those_of_settings_that_nobody_touched() -> None:
    """What bounds and divides an amount has one default, wherever it is read."""
    terms, settings = Terms(), Settings()
    assert (730, 72, Decimal(3)) == (terms.hours_per_month, terms.max_catch_up_hours, terms.brake_factor)
    for name in ("hours_per_month", "max_catch_up_hours", "brake_factor", "partial_hour", "currency"):
        assert getattr(settings, name) == getattr(terms, name)
