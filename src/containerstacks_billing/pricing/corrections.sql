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

-- part: corrected_hours
-- The hours of our charges that begin in the span, with the rate that holds for them now: that of the latest adjustment,
-- else that of the charge. Spans are nested or disjoint, so one adjustment covers all of these hours or none.
corrected_hours as (
    select charge.id as charge_id, charge.organization_id, vps_instance_id as instance_id, status, run_id,
        billing_period_start as starts_at, billing_period_end as ends_at, hourly_rate, total_amount, hours_from, hours_until,
        coalesce((select adjustment.new_rate from billing_adjustments adjustment
                  where adjustment.organization_id = charge.organization_id and adjustment.charge_id = charge.id
                    and adjustment.hours_from <= span.hours_from and adjustment.hours_until >= span.hours_until
                  order by adjustment.id desc limit 1), hourly_rate) as old_rate
    from vps_billing_cycles charge, lateral (
        select case when billing_period_start >= %(corrected_from)s then billing_period_start
                    else billing_period_start + ceil(extract(epoch from %(corrected_from)s - billing_period_start) / 3600)::integer
                        * interval '1 hour' end as hours_from,
            least(billing_period_end, billing_period_start
                + ceil(extract(epoch from %(corrected_until)s - billing_period_start) / 3600)::integer * interval '1 hour')
                as hours_until
    ) span
    where charge.organization_id between %(first_organization)s and %(last_organization)s
      and charge.run_id is not null and charge.plan_id = %(plan_id)s and status in ('billed', 'failed')
      and created_at <= %(decided_at)s
      and billing_period_start < %(corrected_until)s and billing_period_end > %(corrected_from)s
      and span.hours_from < span.hours_until
      and not exists (
        select from billing_adjustments adjustment
        where adjustment.organization_id = charge.organization_id and adjustment.charge_id = charge.id
          and adjustment.correction_id = %(correction_id)s)
),
difference as (
    select distinct on (charge_id) corrected_hours.*, new_rate,
        billing_amount(old_rate, hours_from, hours_until) as old_amount,
        billing_amount(new_rate, hours_from, hours_until) as new_amount
    from corrected_hours
    join rate_change using (old_rate)
    left join billing_runs on billing_runs.id = corrected_hours.run_id
    order by charge_id, recency, rate_change.hours_per_month = billing_runs.hours_per_month desc nulls last,
        rate_change.hours_per_month, new_rate
)

-- part: affordable
-- The differences of billed charges, and whether the wallet can bear each: what is given back always, what is charged on top by
-- the start of its hours, then by instance, until the first that the wallet does not hold, exactly and not after flooring.
affordable as (
    select difference.*, new_amount - old_amount as amount, wallet_id, balance, billing_carry,
        coalesce(balance between -100000000000 and 100000000000
            and (new_amount < old_amount
                 or sum(new_amount - old_amount) over (partition by organization_id
                    order by new_amount > old_amount, hours_from, instance_id, charge_id rows unbounded preceding)
                    <= available), false) as is_posted
    from difference left join payer using (organization_id)
    where status = 'billed' and new_amount <> old_amount
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

-- name: next_organizations
-- The end of the next range of organizations with charges of ours. One probe of the index for each: a history of years
-- costs no more than one of a day.
with recursive place as (
    (select organization_id, 1 as number from vps_billing_cycles
     where run_id is not null and organization_id > %(after)s order by organization_id limit 1)
    union all
    (select (select organization_id from vps_billing_cycles
             where run_id is not null and organization_id > place.organization_id order by organization_id limit 1), number + 1
     from place where organization_id is not null and number < %(organizations)s)
)
select organization_id from place where organization_id is not null order by number desc limit 1;

-- name: preview_correction
-- What a correction changes, by organization: billed charges, past-due ones, and what the wallet cannot bear.
with
-- include: payers, rate_changes, corrected_hours, affordable
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

-- name: lock_wallets_to_adjust
-- Lock the wallets of the range, in the order in which batches lock them.
select id from wallets
where organization_id between %(first_organization)s and %(last_organization)s
order by organization_id, created_at, id
for no key update;

-- name: post_adjustments
-- Write the adjustments that the wallets can bear; each charge once per correction.
insert into billing_adjustments (correction_id, posting, charge_id, organization_id, instance_id, hours_from, hours_until,
    old_rate, new_rate, amount, payment_transaction_id, created_at, decided_by, reason)
with
-- include: payers, rate_changes, corrected_hours, affordable
select %(correction_id)s, %(posting)s, charge_id, organization_id, instance_id, hours_from, hours_until, old_rate, new_rate,
    amount,
    case when floor((billing_carry + sum(amount) over (partition by organization_id)) * 100) <> 0
         then billing_batch_uuid(%(posting_key)s, uuid_hash_extended(organization_id, 0)) end,
    %(posted_at)s, %(decided_by)s, %(reason)s
from affordable where is_posted;

-- part: adjusted
-- What this posting changes, by organization. Rounded down, so what is carried stays between nothing and a cent: a credit of a
-- fraction gives back the whole cent and carries the rest.
adjusted as (
    select payer.*, amount, instances, hours, floor((billing_carry + amount) * 100) / 100 as debit
    from payer join (
        select organization_id, sum(amount) as amount, count(distinct instance_id) as instances,
            sum(extract(epoch from hours_until - hours_from)) / 3600 as hours
        from billing_adjustments
        where organization_id between %(first_organization)s and %(last_organization)s
          and correction_id = %(correction_id)s and posting = %(posting)s
        group by organization_id
    ) total using (organization_id)
)

-- name: post_adjustment_entries
-- Write one ledger entry per wallet: a debit or a credit of whole cents. No cents, no entry. A credit has the method that the host
-- gives to adjustments: its reports count every other credit as revenue.
insert into payment_transactions (id, organization_id, amount, currency, payment_method, payment_provider,
    provider_transaction_id, status, description, metadata, created_at, updated_at)
with
-- include: payers, adjusted
select
    billing_batch_uuid(%(posting_key)s, uuid_hash_extended(organization_id, 0)),
    organization_id, -debit, %(currency)s, case when debit > 0 then 'wallet_debit' else 'manual_adjustment' end, 'internal',
    'billing-adjustment-' || %(correction_id)s::text, 'completed',
    'VPS Price Correction - ' || %(plan_name)s || ' - ' || case when instances = 1 then '1 instance' else
        instances::text || ' instances' end || ' (' || trim_scale(round(hours, 4))::text || 'h from '
        || to_char(%(corrected_from)s at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC)',
    jsonb_build_object('balance_before', balance, 'balance_after', round(balance - debit, 2), 'correction_id', %(correction_id)s::bigint,
        'instances', instances, 'hours', trim_scale(round(hours, 6)), 'exact_amount', amount, 'carry_before', billing_carry),
    %(posted_at)s, %(posted_at)s
from adjusted
where debit <> 0;

-- name: adjust_wallets
-- Move each balance by the same cents, and carry on what is left below a cent.
with
-- include: payers, adjusted
update wallets
set balance = wallets.balance - debit, billing_carry = wallets.billing_carry + amount - debit
from adjusted
where wallets.organization_id between %(first_organization)s and %(last_organization)s
  and wallets.id = adjusted.wallet_id;

-- name: rerate_past_due
-- Rate past-due charges anew, in place. One that is only partly inside the span is split into up to three: the first keeps
-- the row. One that costs nothing any more becomes billed.
with
-- include: rate_changes, corrected_hours
,
past_due as (
    select * from difference where status = 'failed' and new_rate <> old_rate
),
piece as (
    select charge_id, starts_at as first_from, piece_from, piece_until, rate,
        billing_amount(rate, piece_from, piece_until) as amount
    from past_due, lateral (values
        (starts_at, hours_from, hourly_rate), (hours_from, hours_until, new_rate), (hours_until, ends_at, hourly_rate)
    ) part (piece_from, piece_until, rate)
    where piece_from < piece_until
),
rest as (
    insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end,
        hourly_rate, total_amount, status, run_id, plan_id, segment_id, past_due_since, metadata, created_at, updated_at)
    select gen_random_uuid(), charge.organization_id, vps_instance_id, piece_from, piece_until, rate, amount,
        case when amount > 0 then 'failed' else 'billed' end, run_id, plan_id, segment_id, past_due_since,
        coalesce(metadata, '{}') || jsonb_build_object('correction_id', %(correction_id)s::bigint,
            'hourly_rate_before', charge.hourly_rate),
        created_at, %(posted_at)s
    from piece join vps_billing_cycles charge on charge.id = charge_id
    where charge.organization_id between %(first_organization)s and %(last_organization)s
      and piece_from > first_from
)
update vps_billing_cycles charge
set billing_period_end = piece_until, hourly_rate = rate, total_amount = amount,
    status = case when amount > 0 then 'failed' else 'billed' end,
    metadata = coalesce(metadata, '{}') || jsonb_build_object('correction_id', %(correction_id)s::bigint,
        'hourly_rate_before', charge.hourly_rate),
    updated_at = %(posted_at)s
from piece
where charge.organization_id between %(first_organization)s and %(last_organization)s
  and charge.id = charge_id and piece_from = first_from;

-- name: close_correction
-- Note how much wallets could not bear when the correction was given last.
update billing_price_corrections
set last_posted_at = %(posted_at)s, unposted_charges = %(unposted_charges)s, unposted_amount = %(unposted_amount)s
where id = %(correction_id)s;

-- name: clear_past_due
-- Clear the mark of wallets that owe nothing any more.
update wallets set past_due_since = null
where organization_id between %(first_organization)s and %(last_organization)s
  and past_due_since is not null
  and not exists (
    select from vps_billing_cycles owed
    where owed.organization_id = wallets.organization_id and owed.status = 'failed' and owed.run_id is not null);
