-- The state of billing: daemons, application sides, runs, lease, quarantine, runways. Every statement reads one row by
-- index, a bounded number of rows, or a table that stays small: it is as quick beside ten million charges as beside ten.

-- part: counted_anew
-- Count what is quarantined or held, by reason: once for each change, under the lease.
counted as materialized (
    select reason, count(*) as instances from (select distinct reason, instance_id from billing_quarantine) one group by reason
),
forgotten as (
    delete from billing_quarantine_counts where reason not in (select reason from counted)
),
counted_anew as (
    insert into billing_quarantine_counts as kept (reason, instances)
    select reason, instances from counted
    on conflict (reason) do update set instances = excluded.instances where kept.instances <> excluded.instances
)

-- name: count_quarantine
-- Count what is quarantined or held.
with
-- include: counted_anew
select from counted;

-- name: quarantine_reasons
-- Why instances are quarantined or held, most frequent reason first.
select reason, instances from billing_quarantine_counts order by instances desc, reason;

-- name: quarantine_reasons_of
-- The same for one organization.
select reason, count(distinct instance_id)::integer as instances
from billing_quarantine
where organization_id = %(organization)s
group by reason
order by instances desc, reason;

-- part: run_record
-- A run's row as it is shown.
record as (
    select id, outcome, trigger, holder, organization_id, as_of, started_at, finished_at, instances_planned, batches_planned,
        instances_billed, hours, amount, past_due_instances, quarantined_instances, held_instances, batches,
        extract(epoch from finished_at - started_at)::float8 as duration_seconds, error_message
    from billing_runs
)

-- name: last_ended_run
-- The last run that came to an end, with any outcome.
with
-- include: run_record
select * from record where outcome is not null order by id desc limit 1;

-- name: last_success
-- The last run over the whole fleet that completed.
with
-- include: run_record
select * from record where outcome = 'completed' and organization_id is null order by id desc limit 1;

-- name: open_run_record
-- The run that is under way, or whose process died without a word.
with
-- include: run_record
select * from record where outcome is null order by id desc limit 1;

-- name: last_counts
-- How many instances were past due after the last run over the whole fleet that was not held.
select past_due_instances from billing_runs
where outcome in ('completed', 'interrupted', 'failed') and organization_id is null
order by id desc limit 1;

-- part: heard_of
-- Every daemon that reported, and when it was heard of. After a clock was set back, a heartbeat is ahead of it until the daemon
-- writes the next one: up to 90 minutes ahead it counts as one of now. One that is farther ahead, infinite or of another age
-- counts as unknown and ranks last, so that a row written by a wrong clock cannot keep built-in billing off.
heard_of as (
    select daemon_instance_id, status, left(error_message, 2000) as error_message, last_run_success, id, instances_billed,
        total_amount, total_hours, metadata,
        case when heartbeat_at between '2000-01-01' and billing_clock() + interval '90 minutes'
            then least(heartbeat_at, billing_clock()) end as heartbeat_at,
        case when started_at between '2000-01-01' and '9999-01-01' then started_at end as started_at,
        case when last_run_at between '2000-01-01' and '9999-01-01' then last_run_at end as last_run_at
    from billing_daemon_status
)

-- name: newest_heartbeat
-- The newest heartbeat of any daemon, never ahead of the clock; null when none is known.
with
-- include: heard_of
select billing_clock() as now, max(heartbeat_at) as heartbeat_at from heard_of;

-- name: last_built_in_run
-- The last run of built-in billing over the whole fleet, by any application side: when it began, and how it ended.
select started_at, outcome
from billing_runs
where trigger = 'built-in' and organization_id is null
order by id desc
limit 1;

-- name: newest_debit_of_host
-- The last hourly debit of the host's own scheduler, which describes each in these words. Other debits of the host (creation
-- fees, deductions by hand) say nothing about its scheduler. Ours carry a key.
select max(created_at) from payment_transactions
where payment_method = 'wallet_debit' and coalesce(provider_transaction_id, '') not like 'billing-%%'
  and created_at between billing_clock() - interval '7 days' and billing_clock()
  and description like 'VPS Hourly Billing - %%';

-- name: application_sides
-- The application sides that looked within five minutes, newest first: their BUILT_IN_BILLING and failover threshold.
select holder, setting, extract(epoch from failover_after)::float8 as failover_seconds, looked_at
from billing_application_sides
where looked_at between billing_clock() - interval '5 minutes' and billing_clock() + interval '90 minutes'
order by looked_at desc, holder
limit 50;

-- name: newest_daemon
-- The daemon with the newest heartbeat, with its figures; NaN counts as nothing.
with
-- include: heard_of
select daemon_instance_id, status, error_message, last_run_at, last_run_success,
    coalesce(instances_billed, 0) as instances_billed, coalesce(nullif(total_amount, 'NaN'), 0) as total_amount,
    coalesce(nullif(total_hours, 'NaN'), 0) as total_hours, started_at, heartbeat_at,
    left(metadata ->> 'next_run_at', 40) as next_run_at, coalesce(metadata, '{}') as process
from heard_of order by heartbeat_at desc nulls last, id desc limit 1;

-- name: runs_before
-- The latest runs before a number, newest first.
with
-- include: run_record
select * from record where id < %(before)s order by id desc limit %(limit)s;

-- name: last_run_of_fleet
-- The last run over the whole fleet that ended, however it ended.
with
-- include: run_record
select * from record where outcome is not null and organization_id is null order by id desc limit 1;

-- name: billed_lately
-- What the runs of the last day, week and thirty days billed.
select count(*) filter (where started_at >= now - interval '1 day') as runs_day,
    coalesce(sum(hours) filter (where started_at >= now - interval '1 day'), 0) as hours_day,
    coalesce(sum(amount) filter (where started_at >= now - interval '1 day'), 0) as amount_day,
    count(*) filter (where started_at >= now - interval '7 days') as runs_week,
    coalesce(sum(hours) filter (where started_at >= now - interval '7 days'), 0) as hours_week,
    coalesce(sum(amount) filter (where started_at >= now - interval '7 days'), 0) as amount_week,
    count(*) as runs_month, coalesce(sum(hours), 0) as hours_month, coalesce(sum(amount), 0) as amount_month
from billing_runs, (select billing_clock() as now) clock
where started_at >= now - interval '30 days';

-- name: events_waiting
-- How many events wait to be delivered, and how many were given up; counts at most ten thousand.
select
    (select count(*) from (
        select from billing_events where delivered_at is null and dead_at is null limit 10000) waiting)::integer as pending,
    (select count(*) from (select from billing_events where dead_at is not null limit 10000) gone)::integer as dead;

-- name: runway_levels
-- How many wallets are empty within 3, 24 and 72 hours, each counted once, those that are empty already within 3; at most a
-- hundred thousand of them.
with
-- include: at_once
select level, count(*)::integer as number
from (
    select case when empties_at <= in_3_hours then 3 when empties_at <= in_24_hours then 24 else 72 end as level
    from billing_runways, at_once
    where empties_at <= in_72_hours
    limit 100000
) soon
group by level
order by level;

-- part: at_once
-- The thresholds of a runway, read off the clock once.
at_once as materialized (
    select at + interval '3 hours' as in_3_hours, at + interval '24 hours' as in_24_hours, at + interval '72 hours' as in_72_hours
    from billing_clock() as at
)
