-- What grows with time and means nothing any more after RETENTION_DAYS. Charges, ledger entries, segments, decisions, prices
-- and policies are never removed: they are the books, or explain them. Each statement removes a few rows, so that it holds
-- its locks for a moment.
--
-- A run's row explains its charges (verify needs the hours per month that it divided by), so a run that committed a batch
-- stays for ever. The count of batches is raised in the transaction that charges: a run whose count is zero has charged
-- nothing, and no charge can name it. A run after the last completed one is needed by the brake, whatever its age.

-- name: is_clock_steady
-- Whether the last day of runs lies within two months of now. After a clock that jumped ahead, everything looks old, and what
-- is removed then does not come back when it is set right; a pause of billing of that length only puts this off by a day.
select coalesce(min(as_of) > billing_clock() - interval '60 days', false)
from (
    select as_of from billing_runs where outcome = 'completed' and organization_id is null order by id desc limit 24
) recent;

-- name: remove_old_runs
-- Remove runs that charged nothing and that nothing refers to any more.
delete from billing_runs
where id in (
    select id from billing_runs
    where batches = 0 and outcome is not null
      and finished_at < billing_clock() - %(retention_days)s * interval '1 day'
      and id < (select max(id) from billing_runs where outcome = 'completed' and organization_id is null)
      and id <= (select max(counted_until) from billing_run_totals)
    order by id limit %(limit)s);

-- name: remove_old_statuses
-- Remove the rows of daemons that have been silent for that long; never the own row.
delete from billing_daemon_status
where id in (
    select id from billing_daemon_status
    where daemon_instance_id <> %(instance_id)s
      and coalesce(heartbeat_at, updated_at, created_at) < billing_clock() - %(retention_days)s * interval '1 day'
    order by id limit %(limit)s);

-- name: remove_old_events
-- Remove events that were delivered or given up, and those whose delivery was not tried for a week.
delete from billing_events
where id in (
    select id from billing_events
    where occurred_at < billing_clock() - %(retention_days)s * interval '1 day'
      and (delivered_at is not null or dead_at is not null
           or attempts = 0 and occurred_at < billing_clock() - interval '7 days')
    order by occurred_at, id limit %(limit)s);
