-- A price correction: which hours were rated at a price that never should have been, and what the difference is.
--
-- The preview and the posting read the same parts, so what is shown is what is posted, as far as wallets and charges stay as
-- they are in between. Nothing is remembered from the preview: each posting derives the differences again, under the lock of the
-- wallets, from charges, adjustments and balances as they are then. It holds the lease, so no run stands beside it.
--
-- A charge knows its hourly rate, not how it came about: with backups or without, with which HOURS_PER_MONTH. So every rate
-- that the replaced price can have led to is put beside the rate that the corrected price leads to in the same way, and a
-- charge whose rate is none of them was not rated at that price and is left alone. Where an earlier correction was
-- never posted for a charge, its hours still stand at the price before that one, which is why those are looked up too.
--
-- Hours are counted from the start of a charge, as they were when it was rated. Whole hours go to one rate or the other;
-- only the last hour of a charge can be a fraction, so the difference of the two rounded amounts is exact.

-- part: rate_changes
-- The hourly rates of the replaced price, each beside the rate that takes its place; recency 0 is the latest.
replaced_price as (
    select %(old_base_price)s::numeric as base_price, %(old_markup_price)s::numeric as markup_price,
        %(backup_hourly)s::numeric as backup_hourly, 0::bigint as recency
    union all
    select old_base_price, old_markup_price, backup_hourly, row_number() over (order by id desc)
    from billing_price_corrections
    where plan_id = %(plan_id)s and id < %(correction_id)s
      and corrected_from <= %(corrected_from)s and corrected_until > %(corrected_from)s
),
rate_change as (
    select recency, hours_per_month,
        round((base_price + coalesce(markup_price, 0)) / hours_per_month + backup, 8) as old_rate,
        round((%(new_base_price)s::numeric + %(new_markup_price)s::numeric) / hours_per_month
            + case when backup > 0 then %(backup_hourly)s::numeric else 0 end, 8) as new_rate
    from replaced_price, (select distinct hours_per_month from billing_runs) setting,
        lateral (select distinct unnest(array[0, backup_hourly])) backups (backup)
    where base_price + coalesce(markup_price, 0) >= 0 and base_price < 'NaN' and coalesce(markup_price, 0) < 'NaN'
)

-- part: corrected_change
-- The hours that stand at a rate which the replaced price can have led to, and the rate that the corrected price leads to in the same
-- way. Where several ways lead to one rate, the divisor of the run decides.
change as (
    select distinct on (charge_id, hours_from) current_hours.organization_id, charge_id, instance_id, run_id, status, metadata,
        starts_at, ends_at, hourly_rate, hours_from, hours_until, old_rate, new_rate, 'now' as answer
    from current_hours
    join rate_change using (old_rate)
    left join billing_runs on billing_runs.id = current_hours.run_id
    where not exists (
        select from billing_adjustments adjustment
        where adjustment.organization_id = current_hours.organization_id and adjustment.charge_id = current_hours.charge_id
          and adjustment.correction_id = %(correction_id)s and adjustment.hours_from < current_hours.hours_until
          and adjustment.hours_until > current_hours.hours_from)
    order by charge_id, hours_from, recency, rate_change.hours_per_month = billing_runs.hours_per_month desc nulls last,
        rate_change.hours_per_month, new_rate
)

-- name: latest_correction
-- The correction that put the given price where it stands, and up to where it still counts: a later one of a part of its span
-- took that part over.
select id, corrected_from, least(corrected_until, (
        select min(later.corrected_from) from billing_price_corrections later
        where later.plan_id = correction.plan_id and later.id > correction.id
          and later.corrected_from >= correction.corrected_from)),
    old_base_price, old_markup_price, backup_hourly, decided_at
from billing_price_corrections correction
where plan_id = %(plan_id)s and corrected_from = %(at)s
  and new_base_price = %(base_price)s and new_markup_price = %(markup_price)s
order by id desc limit 1;

-- name: record_correction
-- Write down what is about to be corrected, by whom and why.
insert into billing_price_corrections (plan_id, corrected_from, corrected_until, old_base_price, old_markup_price,
    new_base_price, new_markup_price, backup_hourly, decided_at, decided_by, reason)
values (%(plan_id)s, %(corrected_from)s, %(corrected_until)s, %(old_base_price)s, %(old_markup_price)s, %(new_base_price)s,
    %(new_markup_price)s, %(backup_hourly)s, %(decided_at)s, %(decided_by)s, %(reason)s)
returning id;

-- name: preview_correction
-- What a correction changes, by organization: billed charges, past-due ones, and what the wallet cannot bear.
with
-- include: payers, rate_changes, chosen_charge, current_hours, corrected_change, difference, affordable
select organization_id, coalesce(organizations.name, organization_id::text), currency,
    instances, hours, old_amount, new_amount,
    coalesce(unposted_charges, 0), coalesce(unposted_amount, 0), balance,
    past_due_instances, past_due_hours, past_due_old_amount, past_due_new_amount
from (
    select organization_id,
        count(distinct instance_id) filter (where status = 'billed') as instances,
        coalesce(sum(hours) filter (where status = 'billed'), 0) as hours,
        coalesce(sum(old_amount) filter (where status = 'billed'), 0) as old_amount,
        coalesce(sum(new_amount) filter (where status = 'billed'), 0) as new_amount,
        count(distinct instance_id) filter (where status = 'failed') as past_due_instances,
        coalesce(sum(hours) filter (where status = 'failed'), 0) as past_due_hours,
        coalesce(sum(old_amount) filter (where status = 'failed'), 0) as past_due_old_amount,
        coalesce(sum(new_amount) filter (where status = 'failed'), 0) as past_due_new_amount
    from difference, lateral (select extract(epoch from hours_until - hours_from) / 3600 as hours) span
    where new_amount <> old_amount
    group by organization_id
) changed
left join (
    select organization_id, count(*) as unposted_charges, sum(amount) as unposted_amount
    from affordable where not is_posted group by organization_id
) unposted using (organization_id)
left join payer using (organization_id)
left join organizations on organizations.id = organization_id
cross join (select %(currency)s::text as currency) setting
order by organization_id;

-- name: close_correction
-- Note how much wallets could not bear when the correction was given last.
update billing_price_corrections
set last_posted_at = %(posted_at)s, unposted_charges = %(unposted_charges)s, unposted_amount = %(unposted_amount)s
where id = %(correction_id)s;

-- name: post_corrected_adjustments
-- Write the adjustments that the wallets can bear; each hour once per correction.
insert into billing_adjustments (correction_id, order_id, posting, charge_id, organization_id, instance_id, hours_from, hours_until,
    old_rate, new_rate, amount, payment_transaction_id, created_at, decided_by, reason)
with
-- include: payers, rate_changes, chosen_charge, current_hours, corrected_change, difference, affordable, adjustment
select * from adjustment;

-- name: reprice_corrected_past_due
-- Rate past-due charges anew, in place.
with
-- include: rate_changes, chosen_charge, current_hours, corrected_change, difference, repriced
select count(*) from repriced;
