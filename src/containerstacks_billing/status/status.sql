-- What the tables say about billing at this moment. Everything here reads one row, or a bounded number of them: the
-- answer is as quick beside ten million charges as beside ten.

-- part: counted_anew
-- Count what is set aside, by reason, for everybody who will ask: once for each change, under the lease.
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

-- name: count_set_aside
-- Count what is set aside.
with
-- include: counted_anew
select from counted;

-- name: set_aside_reasons
-- Why instances are set aside, most frequent reason first.
select reason, instances from billing_quarantine_counts order by instances desc, reason;

-- name: set_aside_reasons_of
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

-- part: heard_of
-- Every daemon that reported, and when it was heard of: a heartbeat that is ahead of the clock by minutes, as after a clock that
-- was set back, is one of now. One that is farther ahead, infinite or of another age is none, and so ranks last.
heard_of as (
    select daemon_instance_id, status, left(error_message, 2000) as error_message, last_run_success, id, instances_billed,
        total_amount, total_hours, metadata,
        case when heartbeat_at between '2000-01-01' and billing_clock() + interval '5 minutes'
            then least(heartbeat_at, billing_clock()) end as heartbeat_at,
        case when started_at between '2000-01-01' and '9999-01-01' then started_at end as started_at,
        case when last_run_at between '2000-01-01' and '9999-01-01' then last_run_at end as last_run_at
    from billing_daemon_status
)

-- name: runway_levels
-- How many wallets are empty within 3, 24 and 72 hours, each counted once; at most a hundred thousand of them.
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
