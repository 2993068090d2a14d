-- What the tables say about billing at this moment. Everything here reads one row, or a bounded number of them: the
-- answer is as quick beside ten million charges as beside ten.

-- name: set_aside_reasons
-- Why instances are set aside, most frequent reason first; counts at most a hundred thousand of them.
select reason, count(distinct instance_id)::integer as instances
from (
    select reason, instance_id from billing_quarantine
    where organization_id between %(first_organization)s and %(last_organization)s
    limit 100000
) set_aside
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

-- name: newest_runs
-- The last runs, newest first.
with
-- include: run_record
select * from record order by id desc limit %(limit)s;

-- name: last_ended_run
-- The last run that came to an end, whatever it was.
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

-- name: last_heard_of
-- The daemon that was heard of last. A date that is infinite, or ahead of the clock, is no heartbeat.
select daemon_instance_id, status, case when isfinite(heartbeat_at) then heartbeat_at end,
    case when isfinite(started_at) then started_at end, case when isfinite(last_run_at) then last_run_at end,
    last_run_success, error_message
from billing_daemon_status
order by heartbeat_at <= billing_clock() desc nulls last, heartbeat_at desc nulls last
limit 1;

-- name: runway_levels
-- How many wallets are empty within 3, 24 and 72 hours, each counted once; at most a hundred thousand of them.
select case when hours_left <= 3 then 3 when hours_left <= 24 then 24 else 72 end as level, count(*)::integer as number
from (
    select extract(epoch from empties_at - at) / 3600 as hours_left
    from billing_runways, billing_clock() as at
    where empties_at <= at + interval '72 hours'
    limit 100000
) soon
group by 1
order by 1;
