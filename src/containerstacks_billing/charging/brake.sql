-- What a run sees before its first charge, what it compares that with, and the hold that may come of it.

-- name: read_fleet
-- All billable instances by plan: how many, how many of them have a price, what those cost in an hour, and the rate of each
-- plan in use, now and at its highest since the reading that it is compared with. One row, whatever the fleet.
with
-- include: plan_rates
,
in_use as (
    select plan_id as name, billing_has_backups(instance) as backups, count(*) as instances
    from vps_instances instance
    where %(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s)
    group by 1, 2
),
priced as (
    select in_use.name, backups, instances, min(plan_rate.plan_id::text)::uuid as plan_id,
        max(rate) filter (where valid_from <= %(as_of)s and %(as_of)s < valid_to) as rate, max(rate) as highest
    from in_use
    left join plan_rate on plan_rate.name = in_use.name and on_sale
        and valid_from <= %(as_of)s and valid_to > least(%(since)s, %(as_of)s),
    lateral (select case when backups then hourly_rate_with_backups else hourly_rate end as rate) one
    group by in_use.name, backups, instances
),
named as (
    select priced.*, name || case when backups then ' with backups' else '' end as key,
        (select left(vps_plans.name, 60) || ' (' || left(priced.name, 60) || ')' from vps_plans
         where vps_plans.id = priced.plan_id) || case when backups then ' with backups' else '' end as label
    from priced
)
select coalesce(sum(instances), 0)::bigint, coalesce(sum(instances) filter (where rate is not null), 0)::bigint,
    coalesce(sum(instances * rate), 0),
    coalesce(jsonb_object_agg(key, rate::text) filter (where rate is not null), '{}'),
    coalesce(jsonb_object_agg(key, highest::text) filter (where highest <> rate), '{}'),
    coalesce(jsonb_object_agg(key, label) filter (where rate is not null), '{}')
from named;

-- name: last_completed_run
-- The reading of the last run over the whole fleet that came to its end.
select run.as_of, host_clock, fleet_instances, fleet_rated_instances, fleet_hourly_rate, fleet_rates,
    (select billable_statuses from billing_policies where valid_from <= run.as_of and run.as_of < valid_to)
from billing_runs run
where outcome = 'completed' and organization_id is null
order by id desc limit 1;

-- name: latest_hold
-- The hold that stands, or that was released and is what the next run is compared with: the latest run that was held for
-- what it saw itself, if no run over the whole fleet completed since.
select id, error_message, finished_at, released_at is not null as is_released, released_at, run.as_of, host_clock, fleet_instances,
    fleet_rated_instances, fleet_hourly_rate, fleet_rates,
    (select billable_statuses from billing_policies where valid_from <= run.as_of and run.as_of < valid_to)
from billing_runs run
where outcome = 'held' and held_by is null
  and id > coalesce((select max(id) from billing_runs where outcome = 'completed' and organization_id is null), 0)
order by id desc limit 1;

-- name: note_reading
-- Keep in the run's row what it saw, and which hold binds it.
update billing_runs
set fleet_instances = %(fleet_instances)s, fleet_rated_instances = %(fleet_rated_instances)s,
    fleet_hourly_rate = %(fleet_hourly_rate)s, fleet_rates = %(fleet_rates)s::text::jsonb, held_by = %(held_by)s
where id = %(run_id)s;

-- name: release_hold
-- Release a hold and the runs that it bound, one that is about to end among them; returns how many runs there were.
with released as (
    update billing_runs
    set released_at = billing_clock(), released_by = %(decided_by)s, release_reason = %(reason)s
    where (id = %(held_run)s and outcome = 'held' or held_by = %(held_run)s) and released_at is null
    returning 1
)
select count(*) from released;
