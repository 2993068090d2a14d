-- Months of charges, in UTC. An hour belongs to the month in which it starts, so a charge of many hours, as after an outage or of
-- past-due hours, is divided: its hours are counted from its start, all but the last cost the hourly rate, and the last costs
-- what is left. A row is counted in the month of its first hour.

-- part: hours_by_month
-- Our charges by month, organization and status, each divided by the months of its hours. Nearly all of them lie within one
-- month, and only the others are divided.
charge as not materialized (
    select organization_id, status, hourly_rate, total_amount, starts_at, seconds, hours,
        date_trunc('month', starts_at, 'UTC') as first_month,
        date_trunc('month', starts_at + (hours - 1) * interval '1 hour', 'UTC') as last_month
    from (
        select organization_id, status, hourly_rate, total_amount, billing_period_start as starts_at,
            extract(epoch from billing_period_end - billing_period_start) as seconds,
            ceil(extract(epoch from billing_period_end - billing_period_start) / 3600)::integer as hours
        from vps_billing_cycles
        where run_id is not null and isfinite(billing_period_start) and isfinite(billing_period_end)
          and billing_period_start < billing_period_end
    ) one
),
piece as (
    select first_month as month, organization_id, status, 1 as rows, seconds, total_amount as amount
    from charge where first_month = last_month
    union all
    select month, organization_id, status, case when month = first_month then 1 else 0 end,
        case when through = hours then seconds - before * 3600 else (through - before) * 3600 end,
        case when through = hours then total_amount - before * hourly_rate else (through - before) * hourly_rate end
    from charge, generate_series(first_month at time zone 'UTC', last_month at time zone 'UTC', interval '1 month') as local_month,
    lateral (
        select local_month at time zone 'UTC' as month, (local_month + interval '1 month') at time zone 'UTC' as next_month
    ) bounds,
    lateral (
        select greatest(0, ceil(extract(epoch from month - starts_at) / 3600)::integer) as before,
            least(hours, ceil(extract(epoch from next_month - starts_at) / 3600)::integer) as through
    ) place
    where first_month < last_month
)

-- name: months_of_charges
-- What the hours of each month come to, from the month of the first charge to the present one, with the ledger entries and
-- corrections that were posted in it. The bytes are the rows' share of the table with its indexes.
with
-- include: hours_by_month, entry_kind
,
by_organization as (
    select month, organization_id, sum(rows) as rows,
        coalesce(sum(seconds) filter (where status <> 'failed'), 0) as seconds,
        coalesce(sum(amount) filter (where status <> 'failed'), 0) as amount,
        sum(rows) filter (where status = 'failed') as past_due_rows, sum(amount) filter (where status = 'failed') as past_due_amount
    from piece group by month, organization_id
),
charged as (
    select month, sum(rows)::bigint as rows, count(*) as organizations, sum(seconds) / 3600 as hours, sum(amount) as amount,
        coalesce(sum(past_due_rows), 0)::bigint as past_due_rows, coalesce(sum(past_due_amount), 0) as past_due_amount
    from by_organization group by month
),
posted as (
    select date_trunc('month', posted_at, 'UTC') as month, coalesce(-sum(amount) filter (where amount < 0), 0) as debits,
        coalesce(sum(amount) filter (where amount > 0), 0) as credits
    from entry_kind
    where kind in ('billing', 'correction', 'reversal', 'credit', 'other billing') and isfinite(posted_at)
    group by 1
),
adjusted as (
    select date_trunc('month', created_at, 'UTC') as month, sum(amount) as amount from billing_adjustments group by 1
),
stored as (select count(*) as rows from vps_billing_cycles),
listed as (
    select local_month at time zone 'UTC' as starts_at, (local_month + interval '1 month') at time zone 'UTC' as ends_at
    from generate_series((select min(month) from charged) at time zone 'UTC',
        date_trunc('month', billing_clock() at time zone 'UTC'), interval '1 month') as local_month
)
select starts_at, ends_at, coalesce(charged.rows, 0) as rows,
    coalesce(round(charged.rows::numeric * pg_total_relation_size('vps_billing_cycles') / stored.rows), 0)::bigint as bytes,
    coalesce(organizations, 0) as organizations, coalesce(hours, 0) as hours, coalesce(charged.amount, 0) as amount,
    coalesce(past_due_rows, 0) as past_due_rows, coalesce(past_due_amount, 0) as past_due_amount,
    coalesce(adjusted.amount, 0) as adjustments, coalesce(debits, 0) as debits, coalesce(credits, 0) as credits
from listed
cross join stored
left join charged on charged.month = starts_at
left join posted on posted.month = starts_at
left join adjusted on adjusted.month = starts_at
order by starts_at;

-- name: waiting_in_months
-- What has to be charged or decided before each of the ended months is complete: billable instances whose hours are not charged
-- to its end, closed segments that are not settled, and price corrections that a wallet could not bear. A watermark that is
-- no date is in quarantine, and may stand for any hour.
with
policy as (select * from billing_policies where valid_to = 'infinity'),
uncharged as (
    select case when isfinite(watermark) then watermark else '-infinity' end as from_instant
    from policy, vps_instances instance, lateral (select coalesce(last_billed_at, created_at) as watermark) place
    where billing_metered_status(instance.status::text, policy.*::billing_policies)
),
unsettled as (select started_at as from_instant from billing_closed_segments() where outcome is null),
unposted as (
    select corrected_from as from_instant from billing_price_corrections where coalesce(unposted_charges, 1) > 0
)
select ends_at, (select count(*) from uncharged where from_instant < ends_at) as uncharged_instances,
    (select count(*) from unsettled where from_instant < ends_at) as unsettled_segments,
    (select count(*) from unposted where from_instant < ends_at) as unposted_corrections
from unnest(%(ends)s::timestamptz[]) as month (ends_at)
order by ends_at;
