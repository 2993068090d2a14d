-- Statements of account: what one month did to a wallet, and what was used in it, for a range of organizations.
--
-- Two accounts, by two dates. The cash account counts ledger entries by when they were posted. The usage account counts hours
-- by when they started, so a charge of many hours, as after an outage or of past-due hours, is cut at the bounds of the
-- month: its hours are counted from its start, all but the last cost the hourly rate, and the last costs what is left.
--
-- The two differ, and the difference is explained to the last digit. A charge is billed at the instant of the run that took
-- it (`billed_at`); what was billed before the month, in it and after it, and the corrections posted by then, less the debits
-- posted by then, is what was carried into the month and out of it. All of it is a function of rows that do not change
-- any more, so a statement of a closed month stays what it was: what was past due at the end of the month is decided by
-- when it fell due and when it was paid, not by whether it is paid today.

-- part: portion
-- Every charge of ours in the range with the parts of it that lie before, in and after the month. An hour that ends with a
-- month or after it was not due by then, whatever the row that it stands in: `rest_before` and `rest_in` are what such an
-- hour at the beginning and at the end of the month costs. OFFSET 0 keeps the planner from putting these expressions into each
-- place that uses them, where they would be computed again: four times the work.
portion as not materialized (
    select charge.*, before, through,
        case when before = hours then total_amount else before * hourly_rate end as amount_before,
        case when through = hours then total_amount else through * hourly_rate end
            - case when before = hours then total_amount else before * hourly_rate end as amount_in,
        total_amount - case when through = hours then total_amount else through * hourly_rate end as amount_after,
        case when before = 0 then 0 when before < hours then hourly_rate
             when ends_at >= %(from)s then total_amount - (hours - 1) * hourly_rate else 0 end as rest_before,
        case when through = before then 0 when through < hours then hourly_rate
             when ends_at >= %(until)s then total_amount - (hours - 1) * hourly_rate else 0 end as rest_in
    from (
        select cycle.organization_id, vps_instance_id as instance_id, cycle.plan_id, hourly_rate, total_amount, segment_id,
            billing_period_start as starts_at, billing_period_end as ends_at, past_due_since,
            case when status = 'failed' then null when past_due_since is null then cycle.created_at
                 else coalesce((select as_of from billing_runs where billing_runs.id = cycle.run_id), cycle.updated_at)
                 end as billed_at,
            ceil(extract(epoch from billing_period_end - billing_period_start) / 3600)::integer as hours
        from vps_billing_cycles cycle
        where cycle.organization_id between %(first_organization)s and %(last_organization)s
          and cycle.run_id is not null
          and isfinite(billing_period_start) and isfinite(billing_period_end)
          and billing_period_start < billing_period_end
        offset 0
    ) charge, lateral (
        select greatest(0, least(hours, ceil(extract(epoch from %(from)s - starts_at) / 3600)::integer)) as before,
            greatest(0, least(hours, ceil(extract(epoch from %(until)s - starts_at) / 3600)::integer)) as through
        offset 0
    ) span
    offset 0
)

-- name: statement_organizations
-- The organizations of the range, those that are deleted and left charges too, with their wallets in the currency. A difference that
-- was accepted moved the opening of its wallet; here it stands at the time of that decision, so that no earlier month changes.
with recursive charged as (
    (select organization_id from vps_billing_cycles
     where run_id is not null and organization_id between %(first_organization)s and %(last_organization)s
     order by organization_id limit 1)
    union all
    select (select organization_id from vps_billing_cycles
            where run_id is not null and organization_id > charged.organization_id
              and organization_id <= %(last_organization)s
            order by organization_id limit 1)
    from charged where organization_id is not null
),
known as (
    select id as organization_id from organizations where id between %(first_organization)s and %(last_organization)s
    union
    select organization_id from charged where organization_id is not null
)
select organization_id, organization.id is not null as exists, organization.name,
    to_jsonb(organization) ->> 'address' as address, to_jsonb(organization) ->> 'tax_id' as tax_id,
    coalesce(wallets, 0) as wallets, coalesce(opened_before, 0) as opened_before, coalesce(opened_in, 0) as opened_in,
    coalesce(accepted_in, 0) as accepted_in, coalesce(acceptances, 0) as acceptances,
    coalesce(carry, 0) as carry, coalesce(balance, 0) as balance, coalesce(opening, 0) as opening
from known
left join organizations organization on organization.id = organization_id
left join lateral (
    select count(*) as wallets, sum(balance) as balance, sum(billing_opening) as opening,
        sum(billing_opening - accepted) filter (where at < %(from)s) + sum(accepted_before) as opened_before,
        sum(billing_opening - accepted) filter (where at >= %(from)s and at < %(until)s) as opened_in,
        sum(decision.accepted_in) as accepted_in, sum(decision.acceptances)::bigint as acceptances, sum(billing_carry) as carry
    from (
        select *, case when isfinite(created_at) then created_at else '-infinity' end as at from wallets
        where wallets.organization_id = known.organization_id and upper(wallets.currency) = %(currency)s
    ) wallet,
    lateral (
        select coalesce(sum(amount), 0) as accepted,
            coalesce(sum(amount) filter (where decided_at < %(from)s), 0) as accepted_before,
            coalesce(sum(amount) filter (where decided_at >= %(from)s and decided_at < %(until)s), 0) as accepted_in,
            count(*) filter (where decided_at >= %(from)s and decided_at < %(until)s) as acceptances
        from billing_decisions
        where check_name = 'balances' and decision = 'accept' and organization_id = known.organization_id
          and wallet_id = wallet.id
    ) decision
) wallet on true
order by organization_id;

-- name: statement_is_complete
-- When this is read, and whether a run ended after the last hour of the month was over, so that no hour waits for its run.
select billing_clock() as read_at, billing_clock() >= %(until)s and exists (
    select from billing_runs
    where outcome = 'completed' and as_of >= %(until)s + interval '1 hour'
      and (organization_id is null
           or organization_id = %(first_organization)s and organization_id = %(last_organization)s)) as complete;

-- name: statement_entries
-- Ledger entries by kind: those before the month, and those in it.
with
-- include: entry_kind
select organization_id, kind,
    coalesce(sum(amount) filter (where posted_at < %(from)s), 0) as before,
    coalesce(sum(amount) filter (where posted_at >= %(from)s and posted_at < %(until)s), 0) as amount,
    count(*) filter (where posted_at >= %(from)s and posted_at < %(until)s) as entries,
    coalesce(sum(amount), 0) as ever
from entry_kind
where organization_id between %(first_organization)s and %(last_organization)s and currency = %(currency)s
group by organization_id, kind
order by organization_id, kind;

-- name: statement_single_entries
-- The single ledger entries of the month that are not the hourly debits: top-ups, corrections and what the host booked.
with
-- include: entry_kind
select organization_id, posted_at, kind, amount, left(description, 500) as description
from entry_kind
where organization_id between %(first_organization)s and %(last_organization)s and currency = %(currency)s
  and kind <> 'billing' and kind <> 'host billing' and posted_at >= %(from)s and posted_at < %(until)s
order by organization_id, posted_at, id
limit %(limit)s;

-- name: statement_usage
-- The hours that start in the month: one line for each instance, plan and rate. Whole hours cost the rate; the last, begun
-- hours of closed segments are added up by themselves, because each of them was rounded by itself.
with
-- include: portion
,
line as (
    select organization_id, instance_id, plan_id, hourly_rate,
        sum(whole_hours) as whole_hours, coalesce(sum(part_seconds), 0) as part_seconds,
        coalesce(sum(amount_in - whole_hours * hourly_rate), 0) as part_amount, sum(amount_in) as amount,
        min(first_at) as first_at, max(last_at) as last_at,
        coalesce(sum(amount_in - rest_in) filter (where is_past_due), 0) as past_due,
        coalesce(sum(case when is_past_due then rest_in else amount_in end)
            filter (where billed_at is null or billed_at >= %(until)s), 0) as debited_later
    from (
        select portion.*,
            case when through = hours then extract(epoch from ends_at - starts_at) - (hours - 1) * 3600 end as last_seconds,
            starts_at + before * interval '1 hour' as first_at,
            least(ends_at, starts_at + through * interval '1 hour') as last_at,
            coalesce(past_due_since < %(until)s and (billed_at is null or billed_at >= %(until)s), false) as is_past_due
        from portion
        where before < through
    ) charge, lateral (
        select through - before - case when last_seconds < 3600 then 1 else 0 end as whole_hours,
            case when last_seconds < 3600 then last_seconds end as part_seconds
        offset 0
    ) lengths
    group by organization_id, instance_id, plan_id, hourly_rate
)
select line.*, vps_plans.name as plan, instance.id is null as deleted, coalesce(instance.label, (
        select segment.label from billing_usage_segments segment
        where segment.organization_id = line.organization_id and segment.instance_id = line.instance_id
        order by started_at desc limit 1)) as label
from line
left join vps_plans on vps_plans.id = line.plan_id
left join vps_instances instance on instance.id = line.instance_id
order by organization_id, label, instance_id, first_at, hourly_rate;

-- name: statement_sums
-- What was billed by organization: before the month, and in it for its own hours, for earlier and for later ones; and the
-- corrections and debits, in all currencies, that decide what was carried.
with
-- include: portion, entry_kind
,
billed as (
    select organization_id,
        coalesce(sum(total_amount) filter (where billed_at < %(from)s), 0) as billed_before,
        coalesce(sum(amount_in) filter (where billed_here), 0) as billed_for_month,
        coalesce(sum(case when was_past_due then rest_before else amount_before end) filter (where billed_here), 0)
            as billed_for_earlier,
        coalesce(sum(amount_before - rest_before) filter (where billed_here and was_past_due), 0) as past_due_collected,
        coalesce(sum(amount_after) filter (where billed_here), 0) as billed_ahead,
        coalesce(sum(amount_in) filter (where billed_at < %(from)s), 0) as billed_early,
        coalesce(sum(total_amount) filter (where billed_at is not null), 0) as billed_ever
    from (
        select *, billed_at >= %(from)s and billed_at < %(until)s as billed_here,
            coalesce(past_due_since < %(from)s, false) as was_past_due
        from portion
    ) charge
    group by organization_id
),
adjusted as (
    select organization_id, coalesce(sum(amount) filter (where created_at < %(from)s), 0) as adjusted_before,
        coalesce(sum(amount) filter (where created_at >= %(from)s and created_at < %(until)s), 0) as adjusted,
        coalesce(sum(amount), 0) as adjusted_ever
    from billing_adjustments
    where organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
),
debited as (
    select organization_id, coalesce(-sum(amount) filter (where posted_at < %(from)s), 0) as debited_before,
        coalesce(-sum(amount) filter (where posted_at >= %(from)s and posted_at < %(until)s), 0) as debited,
        coalesce(-sum(amount) filter (where posted_at >= %(from)s and posted_at < %(until)s
            and currency is distinct from %(currency)s), 0) as debited_elsewhere,
        coalesce(-sum(amount), 0) as debited_ever
    from entry_kind
    where organization_id between %(first_organization)s and %(last_organization)s
      and kind in ('billing', 'correction', 'reversal', 'credit', 'audit', 'other billing')
    group by organization_id
),
accepted as (
    select organization_id, sum(amount) as accepted
    from billing_decisions
    where decision = 'accept' and check_name = 'carries'
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
),
carried as (
    select organization_id, sum(billing_carry) as carried_now
    from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
)
select organization_id, coalesce(billed_before, 0) as billed_before, coalesce(billed_for_month, 0) as billed_for_month,
    coalesce(billed_for_earlier, 0) as billed_for_earlier, coalesce(past_due_collected, 0) as past_due_collected,
    coalesce(billed_ahead, 0) as billed_ahead, coalesce(billed_early, 0) as billed_early,
    coalesce(billed_ever, 0) as billed_ever, coalesce(adjusted_before, 0) as adjusted_before,
    coalesce(adjusted, 0) as adjusted, coalesce(adjusted_ever, 0) as adjusted_ever,
    coalesce(debited_before, 0) as debited_before, coalesce(debited, 0) as debited,
    coalesce(debited_elsewhere, 0) as debited_elsewhere, coalesce(debited_ever, 0) as debited_ever,
    coalesce(carried_now, 0) as carried_now, coalesce(accepted, 0) as accepted
from billed
full join adjusted using (organization_id)
full join debited using (organization_id)
full join carried using (organization_id)
left join accepted using (organization_id)
order by organization_id;

-- name: statement_adjustments
-- Corrections, reversals, credits and repayments posted in the month, by instance, with the hours that they are about. A repayment
-- of an audit names no hours.
select adjustment.organization_id, adjustment.instance_id, coalesce(given.kind, 'correction') as kind, correction_id, order_id,
    sum(adjustment.amount) as amount, coalesce(sum(extract(epoch from hours_until - hours_from)), 0) as seconds,
    coalesce(min(hours_from), min(adjustment.created_at)) as first_at,
    coalesce(max(hours_until), min(adjustment.created_at) + interval '1 second') as last_at,
    min(adjustment.created_at) as posted_at, (array_agg(adjustment.reason order by adjustment.id))[1] as reason,
    coalesce((select label from vps_instances where id = adjustment.instance_id), (
        select segment.label from billing_usage_segments segment
        where segment.organization_id = adjustment.organization_id and segment.instance_id = adjustment.instance_id
        order by started_at desc limit 1)) as label
from billing_adjustments adjustment
left join billing_adjustment_orders given on given.id = order_id
where adjustment.organization_id between %(first_organization)s and %(last_organization)s
  and adjustment.created_at >= %(from)s and adjustment.created_at < %(until)s
group by adjustment.organization_id, adjustment.instance_id, given.kind, correction_id, order_id
order by adjustment.organization_id, label, adjustment.instance_id, correction_id, order_id;

-- name: statement_host_rows
-- What the host application billed by itself for hours that start in the month; marked, and part of neither account of ours.
select organization_id, vps_instance_id as instance_id, (select label from vps_instances where id = vps_instance_id) as label,
    count(*) as periods, sum(extract(epoch from billing_period_end - billing_period_start)) as seconds,
    sum(total_amount) as amount, min(billing_period_start) as first_at, max(billing_period_end) as last_at
from vps_billing_cycles
where organization_id between %(first_organization)s and %(last_organization)s
  and run_id is null and status = 'billed' and total_amount <> 'NaN'
  and billing_period_start >= %(from)s and billing_period_start < %(until)s and isfinite(billing_period_end)
group by organization_id, vps_instance_id
order by organization_id, label, vps_instance_id;
