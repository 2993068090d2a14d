-- The row by which a daemon is known. Money depends on nothing in here, so the row may vanish at any time: every heartbeat
-- writes it whole.

-- name: beat
-- Write the heartbeat of one daemon, by the database's clock. Amounts that the host's columns cannot hold stop at their
-- largest value; billing_runs has them exactly. What is not known of a last run leaves alone what the row says.
insert into billing_daemon_status as row (daemon_instance_id, status, last_run_at, last_run_success, instances_billed,
    total_amount, total_hours, error_message, started_at, heartbeat_at, metadata, created_at, updated_at)
select %(instance_id)s, %(status)s, %(last_run_at)s, %(last_run_success)s, least(%(instances_billed)s, 2147483647),
    round(least(greatest(%(amount)s, -99999999.99), 99999999.99), 2), round(least(%(hours)s, 99999999.99), 2),
    %(error_message)s, now - %(up_seconds)s * interval '1 second', now - %(silent_seconds)s * interval '1 second',
    %(metadata)s::jsonb || jsonb_build_object('next_run_at', now + %(next_seconds)s::float8 * interval '1 second'), now, now
from (select billing_clock() as now) clock
on conflict (daemon_instance_id) do update
set status = excluded.status,
    last_run_at = coalesce(excluded.last_run_at, row.last_run_at),
    last_run_success = coalesce(excluded.last_run_success, row.last_run_success),
    instances_billed = case when excluded.last_run_at is null then row.instances_billed else excluded.instances_billed end,
    total_amount = case when excluded.last_run_at is null then row.total_amount else excluded.total_amount end,
    total_hours = case when excluded.last_run_at is null then row.total_hours else excluded.total_hours end,
    error_message = excluded.error_message,
    started_at = coalesce(row.started_at, excluded.started_at),
    heartbeat_at = excluded.heartbeat_at,
    metadata = excluded.metadata,
    updated_at = excluded.updated_at;

-- name: last_daemon_run
-- The facts of the last run that any daemon finished: what a new daemon shows until it has finished one itself.
select id, finished_at, outcome = 'completed' as success, outcome, instances_billed, amount, hours, error_message
from billing_runs
where trigger = 'daemon' and outcome is not null
order by id desc limit 1;

-- name: rows_of_host
-- The daemons of one host that never wrote that they ended, with what identifies their process.
with
-- include: heard_of
select daemon_instance_id, heartbeat_at, metadata
from heard_of
where status <> 'stopped' and daemon_instance_id <> %(instance_id)s and metadata ->> 'hostname' = %(hostname)s
  and metadata ->> 'ended' is null
order by id desc limit 100;

-- name: close_row
-- Write into the row of a process that is gone that it was killed; its heartbeat stays.
update billing_daemon_status
set status = 'error', error_message = %(message)s, metadata = metadata || '{"ended": true}', updated_at = billing_clock()
where daemon_instance_id = %(instance_id)s;
