-- What the application side shows. Every statement reads one row by index, or a table that stays small.

-- name: newest_daemon
-- The daemon that was heard of last, with its figures; NaN counts as nothing.
with
-- include: heard_of
select daemon_instance_id, status, error_message, last_run_at, last_run_success,
    coalesce(instances_billed, 0) as instances_billed, coalesce(nullif(total_amount, 'NaN'), 0) as total_amount,
    coalesce(nullif(total_hours, 'NaN'), 0) as total_hours, started_at, heartbeat_at,
    left(metadata ->> 'next_run_at', 40) as next_run_at
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
