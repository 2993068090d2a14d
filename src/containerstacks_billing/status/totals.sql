-- Totals of runs, wallets, past-due charges and deliveries, for metrics.

-- part: run_sums
-- What runs that ended after the counted ones add up to, by trigger and outcome; runs after one that is open wait for it.
run_sums as (
    select trigger, outcome, max(id) as counted_until, count(*) as runs, sum(hours) as hours, sum(amount) as amount,
        sum(seconds) as duration_seconds, count(*) filter (where seconds <= 1) as within_1s,
        count(*) filter (where seconds <= 5) as within_5s, count(*) filter (where seconds <= 15) as within_15s,
        count(*) filter (where seconds <= 60) as within_60s, count(*) filter (where seconds <= 300) as within_300s,
        count(*) filter (where seconds <= 900) as within_900s, count(*) filter (where seconds <= 3600) as within_3600s
    from (
        select id, trigger, outcome, hours, amount, greatest(extract(epoch from finished_at - started_at), 0) as seconds
        from billing_runs
        where id > (select coalesce(max(counted_until), 0) from billing_run_totals)
          and id < coalesce((select min(id) from billing_runs where outcome is null), 9223372036854775807)
    ) ended
    group by trigger, outcome
)

-- name: lock_run_totals
-- Let one session at a time add to the totals; readers go on.
lock table billing_run_totals in share row exclusive mode;

-- name: add_up_runs
-- Add the runs that ended to the totals.
insert into billing_run_totals as total (trigger, outcome, counted_until, runs, hours, amount, duration_seconds, within_1s, within_5s,
    within_15s, within_60s, within_300s, within_900s, within_3600s)
with
-- include: run_sums
select trigger, outcome, counted_until, runs, hours, amount, duration_seconds, within_1s, within_5s, within_15s, within_60s,
    within_300s, within_900s, within_3600s
from run_sums
on conflict (trigger, outcome) do update
set counted_until = excluded.counted_until, runs = total.runs + excluded.runs, hours = total.hours + excluded.hours,
    amount = total.amount + excluded.amount, duration_seconds = total.duration_seconds + excluded.duration_seconds,
    within_1s = total.within_1s + excluded.within_1s, within_5s = total.within_5s + excluded.within_5s,
    within_15s = total.within_15s + excluded.within_15s, within_60s = total.within_60s + excluded.within_60s,
    within_300s = total.within_300s + excluded.within_300s, within_900s = total.within_900s + excluded.within_900s,
    within_3600s = total.within_3600s + excluded.within_3600s;

-- name: run_totals
-- What all runs that ended add up to, by trigger and outcome.
with
-- include: run_sums
select trigger, outcome, sum(runs)::bigint as runs, sum(hours) as hours, sum(amount) as amount,
    sum(duration_seconds)::float8 as duration_seconds,
    array[sum(within_1s), sum(within_5s), sum(within_15s), sum(within_60s), sum(within_300s), sum(within_900s),
        sum(within_3600s)]::bigint[] as within
from (
    select trigger, outcome, runs, hours, amount, duration_seconds, within_1s, within_5s, within_15s, within_60s, within_300s,
        within_900s, within_3600s
    from billing_run_totals
    union all
    select trigger, outcome, runs, hours, amount, duration_seconds, within_1s, within_5s, within_15s, within_60s, within_300s,
        within_900s, within_3600s
    from run_sums
) both_parts
group by trigger, outcome
order by trigger, outcome;

-- name: past_due_amount
-- What the last run of the whole fleet left past due; nothing before the first that counted it.
select past_due_amount
from (
    select id, past_due_amount from billing_runs
    where organization_id is null and outcome is not null
    order by id desc limit 24
) latest
where past_due_amount is not null
order by id desc limit 1;

-- name: oldest_waiting_event
-- When the oldest event occurred that waits to be delivered, of ten thousand that are due first.
select min(occurred_at) from (
    select occurred_at from billing_events where delivered_at is null and dead_at is null
    order by next_attempt_at, id limit 10000
) waiting;

-- name: last_verification_figures
-- When the books were last proven, and how many discrepancies there were.
select read_at, discrepancies from billing_verifications order by id desc limit 1;
