-- Where an amount comes from: from a ledger entry or a charge down to hours, rate, price, run and adjustments.
--
-- A ledger entry and the charges that it pays for are linked by vps_billing_cycles.payment_transaction_id, which has no
-- index: one would cost every run more than all explanations together. Two indexes that are there find the same rows. The
-- identifiers of a batch begin with the same sixteen digits, so the charges that a batch wrote stand in one range of the
-- primary key, which the identifier of the entry gives away. Past-due charges that the batch paid are older than the
-- batch; they carry the number of the run that paid them, and those have an index of their own. Where the charges that are
-- found do not add up to the entry, `charges_of_entry_anywhere` looks through the whole history of the organization
-- before a difference is reported.

-- name: identify
-- What an id names: a charge, a ledger entry, an instance or an organization, also one that is deleted, by what it left. Only
-- an id that no table knows otherwise is looked for among all charges by their instance, for which there may be no index.
select billing_clock() as read_at, case
    when exists (select from vps_billing_cycles where id = %(id)s) then 'charge'
    when exists (select from payment_transactions where id = %(id)s) then 'entry'
    when exists (select from vps_instances where id = %(id)s) then 'instance'
    when exists (select from organizations where id = %(id)s) then 'organization'
    when exists (select from vps_billing_cycles where organization_id = %(id)s) then 'organization'
    when exists (select from billing_usage_segments where instance_id = %(id)s) then 'instance'
    when exists (select from billing_charged_until where instance_id = %(id)s) then 'instance'
    when exists (select from vps_billing_cycles where vps_instance_id = %(id)s) then 'instance'
    end as kind;

-- name: explained_entry
-- A ledger entry; what its metadata say about the wallet counts where they are numbers.
select entry.id as entry_id, entry.organization_id, organization.name as organization, amount, currency, entry.status,
    payment_method, provider_transaction_id as reference, description, entry.created_at as posted_at,
    case when jsonb_typeof(metadata -> 'carry_before') = 'number' then (metadata ->> 'carry_before')::numeric end
        as carry_before,
    case when jsonb_typeof(metadata -> 'balance_before') = 'number' then (metadata ->> 'balance_before')::numeric end
        as balance_before,
    case when jsonb_typeof(metadata -> 'balance_after') = 'number' then (metadata ->> 'balance_after')::numeric end
        as balance_after
from payment_transactions entry
left join organizations organization on organization.id = entry.organization_id
where entry.id = %(id)s;

-- name: latest_entry_of
-- The last ledger entry of billing of an organization at or before an instant.
select id
from payment_transactions
where organization_id = %(organization)s and starts_with(provider_transaction_id, 'billing-')
  and created_at <= %(at)s
order by created_at desc, id desc
limit 1;

-- part: explained_charge
-- The chosen charges with what is needed to explain them: label, plan, run and usage segment.
explained_charge as (
    select charge.id as charge_id, charge.organization_id, vps_instance_id as instance_id,
        coalesce(
            (select label from vps_instances where id = vps_instance_id),
            (select segment.label from billing_usage_segments segment
             where segment.organization_id = charge.organization_id and segment.instance_id = vps_instance_id
             order by segment.started_at desc limit 1)) as label,
        charge.plan_id, (select name from vps_plans where vps_plans.id = charge.plan_id) as plan_name,
        billing_period_start as starts_at, billing_period_end as ends_at, hourly_rate, total_amount as amount,
        charge.status, case when charge.past_due_since is not null then (charge.metadata #>> '{billing_order,id}')::bigint end as set_by,
        payment_transaction_id as entry_id, past_due_since, charge.created_at as charged_at,
        charge.run_id, run.as_of, run.trigger, run.holder, run.fencing_token, run.hours_per_month,
        segment.id as segment_id, segment.status as segment_status, segment.reason as segment_reason,
        segment.backups, segment.closed_at
    from vps_billing_cycles charge
    join chosen on chosen.id = charge.id
    left join billing_runs run on run.id = charge.run_id
    left join billing_usage_segments segment on segment.id = charge.segment_id
)

-- name: charges_of_entry
-- The charges that a ledger entry pays for, found by the identifiers of its batch and by the run that paid past-due ones.
with chosen as (
    select id from vps_billing_cycles
    where id between %(first_id)s and %(last_id)s
      and payment_transaction_id = %(entry)s and organization_id = %(organization)s and run_id is not null
    union
    select id from vps_billing_cycles
    where run_id = %(run_id)s and organization_id = %(organization)s and past_due_since is not null
      and payment_transaction_id = %(entry)s
),
-- include: explained_charge
select * from explained_charge order by starts_at, instance_id;

-- name: charges_of_entry_anywhere
-- The same, found by reading every charge of the organization.
with chosen as (
    select id from vps_billing_cycles
    where organization_id = %(organization)s and payment_transaction_id = %(entry)s and run_id is not null
),
-- include: explained_charge
select * from explained_charge order by starts_at, instance_id;

-- name: charge_by_id
-- One charge; without a run where the host application wrote it.
with chosen as (select %(id)s::uuid as id),
-- include: explained_charge
select * from explained_charge;

-- name: adjustments_of_charges
-- What corrections and orders changed about the given charges, oldest first.
select adjustment.id as adjustment_id, coalesce(given.kind, 'correction') as kind, coalesce(given.mode = 'undo', false) as is_undo,
    correction_id, order_id, charge_id, instance_id, hours_from as starts_at, hours_until as ends_at,
    old_rate, new_rate, amount, payment_transaction_id as entry_id, created_at as posted_at, adjustment.decided_by, adjustment.reason
from billing_adjustments adjustment
left join billing_adjustment_orders given on given.id = order_id
where organization_id = %(organization)s and charge_id = any (%(charges)s)
order by adjustment.id;

-- name: adjustments_of_entry
-- What a ledger entry of a correction or an order gives back or takes, oldest hours first.
select adjustment.id as adjustment_id, coalesce(given.kind, 'correction') as kind, coalesce(given.mode = 'undo', false) as is_undo,
    correction_id, order_id, charge_id, instance_id, hours_from as starts_at, hours_until as ends_at,
    old_rate, new_rate, amount, payment_transaction_id as entry_id, created_at as posted_at, adjustment.decided_by, adjustment.reason
from billing_adjustments adjustment
left join billing_adjustment_orders given on given.id = order_id
where organization_id = %(organization)s and payment_transaction_id = %(entry)s
order by hours_from, adjustment.id;

-- name: prices_behind
-- The price versions of plans in order, and the prices that corrections replaced (corrected_at is set): every price that a
-- rate can come from.
select plan_id, nullif(valid_from, '-infinity') as valid_from, nullif(valid_to, 'infinity') as valid_until,
    coalesce(base_price, 'NaN') + coalesce(markup_price, 0) as monthly, base_price as base, markup_price as markup,
    coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0) as backup_hourly,
    recorded_at, recorded_by, reason, null::timestamptz as corrected_at
from plan_price_versions
where plan_id = any (%(plans)s)
union all
select plan_id, corrected_from, corrected_until, coalesce(old_base_price, 'NaN') + coalesce(old_markup_price, 0),
    old_base_price, old_markup_price, backup_hourly, null, null, null, decided_at
from billing_price_corrections
where plan_id = any (%(plans)s)
order by plan_id, valid_from nulls first, corrected_at desc nulls first;

-- name: hours_per_month_used
-- Every divisor that a run used: a past-due charge was rated by an earlier run than the one that paid it.
-- Each is the least one above the one before, so the index is read once for each and not once for each run.
with recursive divisor as (
    select min(hours_per_month) as hours_per_month from billing_runs where hours_per_month > 0
    union all
    select (select min(hours_per_month) from billing_runs where hours_per_month > divisor.hours_per_month)
    from divisor where hours_per_month is not null
)
select hours_per_month from divisor where hours_per_month is not null order by hours_per_month;
