"""Every kind of damage to the books is found by the comparison that is there for it, where it was done.

Each case plants one damage directly in the rows and names all the checks that notice. So a check that was removed, or went
blind, fails a test of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from tests.books import Books, failed, of


@dataclass(frozen=True)
class Damage:
    """What is done, the check that has to name the place, the others that notice too."""

    done: Callable[[Books], dict[str, object]]
    check: str
    noticed_too: frozenset[str] = frozenset()
    says: str = ""


def _charged_half_an_hour_early(books: Books) -> dict[str, object]:
    charge = books.charge(books.web, 1)
    books.damage(
        "update vps_billing_cycles set billing_period_start = billing_period_start - interval '30 minutes',"
        " billing_period_end = billing_period_end - interval '30 minutes' where id = %s",
        charge,
    )
    return {"instance_id": str(books.web), "charge_id": str(charge)}


def _charged_to_both_organizations(books: Books) -> dict[str, object]:
    charge = books.one("select gen_random_uuid()")
    books.damage(
        "insert into vps_billing_cycles (id, vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, run_id, plan_id) select %s, vps_instance_id, %s, billing_period_start,"
        " billing_period_end, hourly_rate, total_amount, 'failed', run_id, plan_id"
        " from vps_billing_cycles where id = %s",
        charge,
        books.poor,
        books.charge(books.moved),
    )
    return {"instance_id": str(books.moved)}


def _charged_though_not_billable(books: Books) -> dict[str, object]:
    books.damage(
        "update billing_usage_segments set outcome = 'not billable' where instance_id = %s and outcome = 'charged'",
        books.deleted,
    )
    return {"instance_id": str(books.deleted)}


def _due_though_charged(books: Books) -> dict[str, object]:
    books.damage("update billing_usage_segments set outcome = null where instance_id = %s", books.deleted)
    return {"instance_id": str(books.deleted)}


def _charged_though_waived(books: Books) -> dict[str, object]:
    books.damage(
        "insert into billing_decisions (organization_id, instance_id, decision, waived_from, waived_to, decided_by, reason)"
        " select organization_id, vps_instance_id, 'waive', billing_period_start + interval '1 hour', billing_period_end,"
        " 'ops', 'our outage' from vps_billing_cycles where id = %s",
        books.charge(books.web),
    )
    return {"instance_id": str(books.web), "charge_id": str(books.charge(books.web))}


def _a_charge_disappeared(books: Books) -> dict[str, object]:
    books.damage("delete from vps_billing_cycles where id = %s", books.charge(books.web, 1))
    return {"instance_id": str(books.web), "organization_id": str(books.rich)}


def _a_debt_disappeared(books: Books) -> dict[str, object]:
    books.damage("delete from vps_billing_cycles where status = 'failed'")
    return {"instance_id": str(books.owing)}


def _a_stopped_segment_disappeared(books: Books) -> dict[str, object]:
    books.damage(
        "delete from billing_usage_segments where instance_id = %s and outcome = 'not billable'",
        books.stopped,
    )
    return {"instance_id": str(books.stopped)}


def _the_watermark_moved_on(books: Books) -> dict[str, object]:
    books.damage(
        "update vps_instances set last_billed_at = %s where id = %s",
        books.fleet.now + timedelta(minutes=20),
        books.web,
    )
    return {"instance_id": str(books.web), "organization_id": str(books.rich)}


def _metering_began_earlier(books: Books) -> dict[str, object]:
    books.damage(
        "update vps_instances set rated_from = rated_from - interval '1 hour' where id = %s", books.web
    )
    return {"instance_id": str(books.web)}


def _the_last_segment_disappeared(books: Books) -> dict[str, object]:
    books.damage("delete from billing_usage_segments where reason = 'deleted'")
    return {"instance_id": str(books.deleted), "organization_id": str(books.rich)}


def _a_backup_was_put_back(books: Books) -> dict[str, object]:
    books.damage(
        "update vps_instances set last_billed_at = last_billed_at - interval '2 hours',"
        " rated_until = rated_until - interval '2 hours' where id = %s",
        books.web,
    )
    return {"instance_id": str(books.web), "organization_id": str(books.rich)}


def _the_host_moved_a_stopped_watermark_back(books: Books) -> dict[str, object]:
    books.fleet.set(books.stopped, status="stopped")
    books.fleet.hours(5)
    books.fleet.set(books.stopped, status="running")
    books.damage(
        "update vps_instances set last_billed_at = last_billed_at - interval '1 hour' where id = %s",
        books.stopped,
    )
    return {"instance_id": str(books.stopped)}


def _an_amount_is_one_digit_off(books: Books) -> dict[str, object]:
    charge = books.charge(books.web)
    books.damage(
        "update vps_billing_cycles set total_amount = total_amount + 0.00000001 where id = %s", charge
    )
    return {"instance_id": str(books.web), "charge_id": str(charge)}


def _a_rate_is_no_number(books: Books) -> dict[str, object]:
    charge = books.past_due(books.owing)
    books.damage(
        "update vps_billing_cycles set hourly_rate = 'NaN', total_amount = 'NaN' where id = %s", charge
    )
    return {"charge_id": str(charge)}


def _a_rate_has_nine_decimals(books: Books) -> dict[str, object]:
    charge = books.past_due(books.owing)
    books.damage("update vps_billing_cycles set hourly_rate = 0.010000000 where id = %s", charge)
    return {"charge_id": str(charge)}


def _a_charge_is_pending(books: Books) -> dict[str, object]:
    charge = books.past_due(books.owing)
    books.damage("update vps_billing_cycles set status = 'pending' where id = %s", charge)
    return {"charge_id": str(charge)}


def _an_adjustment_is_wrong(books: Books) -> dict[str, object]:
    _adjust(books, "0.02", "0.03")
    return {"charge_id": str(books.charge(books.web)), "instance_id": str(books.web)}


def _adjust(books: Books, new_rate: str, amount: str) -> None:
    """Correct the first two hours of the web instance, one cent each, without moving money."""
    books.damage(
        "insert into billing_adjustments (correction_id, posting, charge_id, organization_id, instance_id, hours_from,"
        " hours_until, old_rate, new_rate, amount, created_at, decided_by) select 1, gen_random_uuid(), id,"
        " organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate, %s, %s, created_at, 'ops'"
        " from vps_billing_cycles where id = %s",
        new_rate,
        amount,
        books.charge(books.web),
    )


def _a_price_was_rewritten(books: Books) -> dict[str, object]:
    books.damage(
        "update plan_price_versions set base_price = 8.03 where plan_id = %s and valid_to = 'infinity'",
        books.small,
    )
    return {"plan_id": str(books.small)}


def _a_price_began_inside_a_charge(books: Books) -> dict[str, object]:
    begins = books.one(
        "select billing_period_start + interval '90 minutes' from vps_billing_cycles where id = %s",
        books.charge(books.web, 2),
    )
    books.damage("update plan_price_versions set valid_to = %s where plan_id = %s", begins, books.small)
    books.damage(
        "insert into plan_price_versions (plan_id, valid_from, base_price, begins_at_commit) values (%s, %s, 8.03, false)",
        books.small,
        begins,
    )
    return {"instance_id": str(books.web), "charge_id": str(books.charge(books.web, 2))}


def _another_plan_than_the_segments(books: Books) -> dict[str, object]:
    books.damage(
        "update billing_usage_segments set plan_id = %s where instance_id = %s",
        str(books.small),
        books.deleted,
    )
    return {"instance_id": str(books.deleted)}


def _the_run_divided_by_other_hours(books: Books) -> dict[str, object]:
    run = books.one("select run_id from vps_billing_cycles where id = %s", books.charge(books.web))
    books.damage("update billing_runs set hours_per_month = 720 where id = %s", run)
    return {"run_id": run, "charge_id": str(books.charge(books.web))}


def _a_carry_changed(books: Books) -> dict[str, object]:
    books.damage(
        "update wallets set billing_carry = billing_carry + 0.00000001 where organization_id = %s", books.rich
    )
    return {"organization_id": str(books.rich), "wallet_id": str(books.wallet(books.rich))}


def _a_carry_is_a_cent(books: Books) -> dict[str, object]:
    books.damage(
        "update wallets set billing_carry = billing_carry + 0.01 where organization_id = %s", books.rich
    )
    return {"wallet_id": str(books.wallet(books.rich))}


def _a_balance_changed(books: Books) -> dict[str, object]:
    books.damage("update wallets set balance = balance - 0.01 where organization_id = %s", books.rich)
    return {"organization_id": str(books.rich), "wallet_id": str(books.wallet(books.rich))}


def _a_balance_is_no_number(books: Books) -> dict[str, object]:
    books.damage("update wallets set balance = 'NaN' where organization_id = %s", books.rich)
    return {"wallet_id": str(books.wallet(books.rich))}


def _a_top_up_disappeared(books: Books) -> dict[str, object]:
    late = books.one("select organization_id from payment_transactions where payment_method = 'paypal'")
    books.damage("delete from payment_transactions where payment_method = 'paypal'")
    return {"wallet_id": str(books.wallet(late))}


def _an_entry(books: Books, instance_number: int = 1) -> object:
    return books.one(
        "select payment_transaction_id from vps_billing_cycles where id = %s",
        books.charge(books.web, instance_number),
    )


def _an_entry_debits_a_cent_more(books: Books) -> dict[str, object]:
    entry = _an_entry(books)
    books.damage("update payment_transactions set amount = amount - 0.01 where id = %s", entry)
    books.damage("update wallets set balance = balance - 0.01 where organization_id = %s", books.rich)
    return {"entry_id": str(entry), "organization_id": str(books.rich)}


def _an_entry_without_charges(books: Books) -> dict[str, object]:
    entry = books.one("select gen_random_uuid()")
    books.damage(
        "insert into payment_transactions (id, organization_id, amount, currency, payment_method, payment_provider,"
        " provider_transaction_id, status, description) values (%s, %s, -1, 'USD', 'wallet_debit', 'internal',"
        " 'billing-run-1', 'completed', 'x')",
        entry,
        books.rich,
    )
    books.damage("update wallets set balance = balance - 1 where organization_id = %s", books.rich)
    return {"entry_id": str(entry)}


def _an_entry_disappeared(books: Books) -> dict[str, object]:
    entry = _an_entry(books)
    books.damage("delete from payment_transactions where id = %s", entry)
    return {"entry_id": str(entry), "charge_id": str(books.charge(books.web, 1))}


def _a_debt_names_an_entry(books: Books) -> dict[str, object]:
    charge = books.past_due(books.owing)
    books.damage(
        "update vps_billing_cycles set payment_transaction_id = %s where id = %s", _an_entry(books), charge
    )
    return {"charge_id": str(charge)}


def _a_run_recorded_less(books: Books) -> dict[str, object]:
    run = books.one("select max(id) from billing_runs")
    books.damage("update billing_runs set amount = amount - 0.00000001 where id = %s", run)
    return {"run_id": run}


def _a_run_recorded_an_instance_more(books: Books) -> dict[str, object]:
    run = books.one("select max(id) from billing_runs")
    books.damage("update billing_runs set instances_billed = instances_billed + 1 where id = %s", run)
    return {"run_id": run}


def _a_run_recorded_other_hours(books: Books) -> dict[str, object]:
    run = books.one("select min(id) from billing_runs")
    books.damage("update billing_runs set hours = hours + 0.001 where id = %s", run)
    return {"run_id": run}


def _a_mark_disappeared(books: Books) -> dict[str, object]:
    books.damage("update wallets set past_due_since = null")
    return {"organization_id": str(books.poor)}


def _a_mark_too_many(books: Books) -> dict[str, object]:
    books.damage("update wallets set past_due_since = '2026-03-01' where organization_id = %s", books.rich)
    return {"organization_id": str(books.rich), "wallet_id": str(books.wallet(books.rich))}


def _a_debit_below_zero(books: Books) -> dict[str, object]:
    entry = _an_entry(books)
    books.damage(
        "update payment_transactions set metadata = metadata || '{\"balance_before\": 0}'"
        " || jsonb_build_object('balance_after', amount) where id = %s",
        entry,
    )
    return {"entry_id": str(entry)}


def _a_balance_that_did_not_follow(books: Books) -> dict[str, object]:
    entry = _an_entry(books)
    books.damage(
        "update payment_transactions set metadata = metadata || '{\"balance_before\": 50.00}' where id = %s",
        entry,
    )
    return {"entry_id": str(entry)}


def _a_change_that_was_not_metered(books: Books) -> dict[str, object]:
    failure = books.one(
        "insert into billing_metering_failures (error, segment) values ('disk full', '[]') returning id"
    )
    return {"failure_id": failure}


def _prices_with_a_gap(books: Books) -> dict[str, object]:
    books.damage(
        "update plan_price_versions set valid_from = '2030-01-01' where plan_id = %s and valid_from > '-infinity'",
        _repriced(books),
    )
    return {"plan_id": str(_repriced(books))}


def _prices_that_overlap(books: Books) -> dict[str, object]:
    books.damage("update plan_price_versions set valid_to = 'infinity' where plan_id = %s", _repriced(books))
    return {"plan_id": str(_repriced(books))}


def _prices_that_end(books: Books) -> dict[str, object]:
    books.damage("update plan_price_versions set valid_to = '2030-01-01' where plan_id = %s", books.small)
    return {"plan_id": str(books.small)}


def _repriced(books: Books) -> object:
    return books.one("select plan_id from plan_price_versions where valid_from > '-infinity'")


def _no_policy_since_yesterday(books: Books) -> dict[str, object]:
    books.damage("update billing_policies set valid_to = '2026-03-01'")
    return {}


MONEY = frozenset({"carries", "entries", "runs"})
DAMAGES = (
    Damage(_charged_half_an_hour_early, "charged-once", frozenset({"gaps"}), "was charged until"),
    Damage(_charged_to_both_organizations, "charged-once", says="was charged until"),
    Damage(_charged_though_not_billable, "charged-once", says="settled or due by itself"),
    Damage(_due_though_charged, "charged-once", says="settled or due by itself"),
    Damage(_charged_though_waived, "charged-once", says="settled or due by itself"),
    Damage(_a_charge_disappeared, "gaps", MONEY, "nothing is charged, past due or explained"),
    Damage(_a_debt_disappeared, "gaps", frozenset({"past-due"})),
    Damage(_a_stopped_segment_disappeared, "gaps"),
    Damage(_the_watermark_moved_on, "gaps", says="12:45:00+00 to 2026-03-01 13:05:00+00"),
    Damage(_metering_began_earlier, "gaps", says="from 2026-02-28 23:00:00+00"),
    Damage(_the_last_segment_disappeared, "gaps", says="its row is gone"),
    Damage(_a_backup_was_put_back, "watermarks", says="behind the end of its last charge"),
    Damage(_the_host_moved_a_stopped_watermark_back, "watermarks", says="until when it was rated"),
    Damage(_an_amount_is_one_digit_off, "amounts", frozenset({"carries", "runs"})),
    Damage(_a_rate_is_no_number, "amounts", frozenset({"rates"})),
    Damage(_a_rate_has_nine_decimals, "amounts", says="at most eight decimals"),
    Damage(_a_charge_is_pending, "amounts", says="no run writes"),
    Damage(_an_adjustment_is_wrong, "amounts", frozenset({"carries", "rates"})),
    Damage(_a_price_was_rewritten, "rates"),
    Damage(_a_price_began_inside_a_charge, "rates", says="was 0.01100000"),
    Damage(_another_plan_than_the_segments, "rates", says="on which its segment ran"),
    Damage(_the_run_divided_by_other_hours, "rates"),
    Damage(_a_carry_changed, "carries", says="0.00000001 too much"),
    Damage(_a_carry_is_a_cent, "carries", says="not between zero and one cent"),
    Damage(_a_balance_changed, "balances"),
    Damage(_a_balance_is_no_number, "balances"),
    Damage(_a_top_up_disappeared, "balances"),
    Damage(_an_entry_debits_a_cent_more, "entries", frozenset({"carries", "below-zero"})),
    Damage(_an_entry_without_charges, "entries", frozenset({"carries"}), "no charge names it"),
    Damage(_an_entry_disappeared, "entries", frozenset({"carries", "balances"}), "no such ledger entry"),
    Damage(_a_debt_names_an_entry, "entries", says="past due"),
    Damage(_a_run_recorded_less, "runs"),
    Damage(_a_run_recorded_an_instance_more, "runs"),
    Damage(_a_run_recorded_other_hours, "runs"),
    Damage(_a_mark_disappeared, "past-due", says="no wallet is marked so"),
    Damage(_a_mark_too_many, "past-due", says="owes nothing"),
    Damage(_a_debit_below_zero, "below-zero", says="from 0 to -"),
    Damage(_a_balance_that_did_not_follow, "below-zero"),
    Damage(_a_change_that_was_not_metered, "metering", says="disk full"),
    Damage(_prices_with_a_gap, "prices", frozenset({"rates"})),
    Damage(_prices_that_overlap, "prices", frozenset({"rates"})),
    Damage(_prices_that_end, "prices", says="its last price ends at 2030-01-01"),
    Damage(_no_policy_since_yesterday, "policies"),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.done.__name__.strip("_"))
def test_damage_is_found_where_it_was_done(books: Books, damage: Damage) -> None:
    """The check that is there for it names the place, and no other check is alarmed without a reason."""
    place = damage.done(books)
    verification = books.verify()
    found = of(verification, damage.check)
    assert {damage.check} | damage.noticed_too == failed(verification), verification.discrepancies
    assert any(
        place.items() <= dict(one.identifiers).items() and damage.says in one.message for one in found
    ), found


def test_an_adjusted_charge_is_right_at_its_new_price(books: Books) -> None:
    """A correction of a past price, its adjustments, and the carry that took them up agree."""
    books.damage(
        "update plan_price_versions set base_price = 8.03 where plan_id = %s and valid_to = 'infinity'",
        books.small,
    )
    before = {one.identifiers["charge_id"] for one in of(books.verify(), "rates")}
    _adjust(books, "0.011", "0.002")
    verification = books.verify()
    assert {"rates", "carries"} == failed(verification)
    assert before - {str(books.charge(books.web))} == {
        one.identifiers["charge_id"] for one in of(verification, "rates")
    }
    books.damage(
        "update wallets set billing_carry = billing_carry + 0.002 where organization_id = %s", books.rich
    )
    assert {"rates"} == failed(books.verify())


def test_a_correction_that_waits_for_money_is_counted_and_no_damage(books: Books) -> None:
    """Until wallets can bear it, the hours of its span stand at the price that it replaced; other prices are still wrong."""
    books.damage("update plan_price_versions set base_price = 8.03 where plan_id = %s", books.small)
    assert {"rates"} == failed(books.verify())
    books.damage(
        "insert into billing_price_corrections (plan_id, corrected_from, corrected_until, old_base_price, new_base_price,"
        " new_markup_price, decided_at, decided_by, unposted_charges) values (%s, '2026-03-01', '2026-03-02', 7.30, 8.03, 0,"
        " '2026-03-02', 'ops', 7)",
        books.small,
    )
    verification = books.verify()
    assert () == verification.discrepancies
    assert 7 == verification.open_items.unposted_adjustments
    books.damage("update billing_price_corrections set old_base_price = 7.00")
    assert {"rates"} == failed(books.verify())
