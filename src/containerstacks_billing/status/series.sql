-- name: runs_over_time
-- Runs of the whole fleet within a span until now, by hour or day: sums of what was charged, and the greatest of the rest.
with ended as (
    select as_of, outcome, amount, instances_billed, fleet_hourly_rate, past_due_instances, past_due_amount,
        quarantined_instances + held_instances as left_out,
        greatest(extract(epoch from finished_at - started_at), 0)::float8 as seconds,
        (extract(epoch from as_of - lag(as_of) over (order by id)) / 3600)::float8 as hours_since
    from billing_runs
    where started_at >= billing_clock() - %(length)s::interval and started_at <= billing_clock()
      and organization_id is null and outcome is not null
)
select date_bin(%(step)s::interval, as_of, '2000-01-01') as starts_at, count(*) as runs,
    count(*) filter (where outcome = 'completed') as completed, sum(amount) as amount, max(instances_billed) as instances,
    max(coalesce(fleet_hourly_rate, 0)) as hourly_rate, max(seconds) as duration_seconds,
    max(hours_since) as since_previous_hours, max(past_due_instances) as past_due_instances,
    max(past_due_amount) as past_due_amount, max(left_out) as left_out
from ended
where as_of between '1900-01-01' and '9998-01-01'
group by 1
order by 1;
