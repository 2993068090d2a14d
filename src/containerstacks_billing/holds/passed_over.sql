-- Hours that the host billed and could not collect before billing was adopted: its rows with the status `failed`, counted by
-- distinct hours. It wrote a longer one every hour, and some of them it charged later.
--
--   since the watermark    they are due to billing too, and the next run charges them, unless they are waived.
--   before it              the host passed over them and nothing charges them. Each becomes a usage segment that is due; then it
--                          is charged or waived as the others are.
--
-- The decision itself, the rows it makes and the statements that carry it out are those of held hours (release.sql).

-- part: host_unpaid
-- Per organization and instance, the hours of the host's failed rows of before the first run.
host_unpaid as materialized (
    select organization_id, vps_instance_id as instance_id,
        range_agg(tstzrange(billing_period_start, billing_period_end)) as hours,
        -- The host counts from its watermark without the microseconds.
        max(billing_period_end) + coalesce((
            select rated_from - date_trunc('milliseconds', rated_from) from vps_instances
            where id = vps_instance_id and isfinite(rated_from)), '0') as tried_until
    from vps_billing_cycles
    where run_id is null and status = 'failed'
      and organization_id between %(first_organization)s and %(last_organization)s
      and vps_instance_id between %(first_instance)s and %(last_instance)s
      and isfinite(billing_period_start) and billing_period_start < billing_period_end and billing_period_end <= %(as_of)s
      and created_at < coalesce((select min(started_at) from billing_runs where batches > 0), 'infinity')
    group by organization_id, vps_instance_id
)

-- name: plan_passed_over
-- Cut the organizations that have such hours into ranges, and count the instances.
with
-- include: host_unpaid
,
organization as (
    select organization_id, count(*) as instances from host_unpaid group by organization_id
)
select (array_agg(organization_id order by organization_id))[1],
    (array_agg(organization_id order by organization_id desc))[1], sum(instances)::bigint
from (
    select organization_id, instances,
        div(sum(instances) over (order by organization_id) - instances, %(batch_size)s) as place
    from organization
) placed
group by place
order by 1;

-- name: file_passed_over
-- Make a segment of each part before the watermark of adoption that neither the host nor billing charged, and that no segment
-- covers. The host's dates have milliseconds, so what is shorter than a second is none.
with
-- include: host_unpaid
,
covered as (
    select instance_id, range_agg(tstzrange(starts_at, ends_at)) as hours
    from (
        select instance_id, billing_period_start as starts_at, billing_period_end as ends_at
        from host_unpaid join vps_billing_cycles on vps_instance_id = instance_id
        where run_id is not null or status in ('billed', 'refunded')
        union all
        select instance_id, started_at, ended_at from host_unpaid join billing_usage_segments using (instance_id)
    ) one
    where starts_at < ends_at
    group by instance_id
)
insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
    charge_until, closed_at, reason)
select host_unpaid.organization_id, instance_id, label, plan_id, 'restored', billing_has_backups(instance), lower(part), upper(part),
    upper(part), %(as_of)s, 'restored'
from host_unpaid
join vps_instances instance on instance.id = instance_id
left join covered using (instance_id),
lateral unnest(host_unpaid.hours * tstzmultirange(tstzrange(null, rated_from)) - coalesce(covered.hours, '{}')) part
where isfinite(rated_from) and upper(part) - lower(part) > interval '1 second'
order by host_unpaid.organization_id, instance_id, lower(part);

-- name: decide_passed_over
-- Record the decision about every segment that is due and holds such hours; returns the range of its numbers. Whole hours of
-- an open segment, since the host's periods are whole hours from its own watermark.
with
-- include: plan_rates, released, pieces, due, host_unpaid
,
passed as (
    select organization_id, instance_id, segment_id, starts_at, case
        when segment_id is not null then least(until, tried_until)
        else least(until, starts_at + round(extract(epoch from tried_until - starts_at) / 3600) * interval '1 hour')
        end as passed_until
    from due join host_unpaid using (organization_id, instance_id)
),
decided as (
    insert into billing_decisions (organization_id, instance_id, segment_id, decision, charge_until, waived_from, waived_to,
        decided_at, decided_by, reason)
    select organization_id, instance_id, coalesce(segment_id, 0), %(decision)s,
        case when %(kept_hours)s > 0 then passed_until end,
        case when %(kept_hours)s = 0 then starts_at end, case when %(kept_hours)s = 0 then passed_until end,
        %(as_of)s, %(decided_by)s, %(reason)s
    from passed
    where starts_at < passed_until
      and not (%(kept_hours)s > 0 and exists (
        select from billing_decisions known
        where known.organization_id = passed.organization_id and known.instance_id = passed.instance_id
          and known.segment_id = coalesce(passed.segment_id, 0) and known.charge_until >= passed_until))
    order by organization_id, instance_id, starts_at
    returning id
)
select min(id), max(id) from decided;
