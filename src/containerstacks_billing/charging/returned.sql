-- Rows that billing did not write itself: compared with what is charged, before anything of them is.
--
-- README.md, "No hour twice", has the argument. A suspect is a span of an instance that nothing but its row, or a segment closed
-- from that row, speaks for: the row may have been deleted and put back, restored from a dump, re-keyed or moved, with our
-- triggers off. An event is a span that is known: charged, closed, waived, or noted when the row left.

-- part: known_hours
-- The events that may touch a suspect. Charges are looked for under every organization that the instance is known to have had hours
-- under, from an hour before the suspect on; those of several hours, which may have begun long before, by an index of their
-- own. OFFSET 0 keeps the planner from turning a few reads of an index into one of the whole table.
place as materialized (
    select organization_id, instance_id, min(starts_at) as starts_at
    from (
        select organization_id, instance_id, starts_at from suspect
        union all
        select known.organization_id, instance_id, starts_at
        from suspect join billing_charged_until known using (instance_id)
    ) one
    group by organization_id, instance_id
),
event as materialized (
    select instance_id, charge.starts_at, ends_at, null::bigint as segment_id, true as is_settled
    from (
        select organization_id, min(starts_at) - interval '1 hour' as since from place group by organization_id
    ) reach,
    lateral (
        select organization_id, vps_instance_id as instance_id, billing_period_start as starts_at, billing_period_end as ends_at
        from vps_billing_cycles
        where organization_id = reach.organization_id and billing_period_start >= since and run_id is not null
          and id not between %(first_id)s and %(last_id)s
        offset 0
    ) charge
    join (select organization_id, instance_id from place) own using (organization_id, instance_id)
    union all
    select instance_id, charge.starts_at, ends_at, null, true
    from (select instance_id, min(starts_at) as since from suspect group by instance_id) reach,
    lateral (
        select billing_period_start as starts_at, billing_period_end as ends_at
        from vps_billing_cycles
        where vps_instance_id = reach.instance_id and billing_period_end > since and run_id is not null
          and billing_period_end - billing_period_start > interval '1 hour'
          and id not between %(first_id)s and %(last_id)s
        offset 0
    ) charge
    union all
    select instance_id, segment.starts_at, ends_at, segment_id, is_settled
    from place,
    lateral (
        select id as segment_id, started_at as starts_at, ended_at as ends_at,
            compared or coalesce(outcome in ('charged', 'waived'), false) as is_settled
        from billing_usage_segments
        where organization_id = place.organization_id and instance_id = place.instance_id and ended_at > place.starts_at
          and (outcome is null or outcome not in ('damaged', 'repeated'))
        offset 0
    ) segment
    union all
    select instance_id, waived_from, waived_to, null, true
    from place,
    lateral (
        select waived_from, waived_to
        from billing_decisions
        where organization_id = place.organization_id and instance_id = place.instance_id and segment_id = 0
          and waived_to > place.starts_at
        offset 0
    ) waived
    union all
    select instance_id, charged_until, charged_until, null, true
    from (select distinct instance_id from suspect) one join billing_charged_until using (instance_id)
    where isfinite(charged_until)
)

-- name: compare_segments
-- Compare segments with what is charged: what they repeat is cut off, and where nothing is left they are settled. What is left of one
-- is judged again, since whole hours and policies count from its start. Those that a batch filed itself were compared before.
with
suspect as materialized (
    select organization_id, instance_id, id as segment_id, started_at as starts_at,
        case when outcome is null then charge_until else ended_at end as ends_at, status, ended_at,
        coalesce(outcome in ('not billable', 'free'), true) and reason not in ('watermark', 'creation', 'restored') as is_judged
    from billing_usage_segments
    where organization_id between %(first_organization)s and %(last_organization)s
      and instance_id between %(first_instance)s and %(last_instance)s
      and (not compared or %(everything)s and outcome is null)
),
-- include: known_hours
,
overlap as (
    select suspect.segment_id, max(event.ends_at) as known_until
    from suspect join event using (instance_id)
    where event.starts_at < suspect.ends_at and event.ends_at > suspect.starts_at
      and (event.segment_id is null
           or event.segment_id <> suspect.segment_id and (is_settled or event.segment_id < suspect.segment_id))
    group by suspect.segment_id
)
update billing_usage_segments segment
set compared = true,
    outcome = case when known_until >= suspect.ends_at then 'repeated' when is_cut then judged.outcome else segment.outcome end,
    charge_until = case when known_until < suspect.ends_at and is_cut then judged.charge_until else segment.charge_until end,
    started_at = case when known_until < suspect.ends_at then greatest(segment.started_at, known_until) else segment.started_at end
from suspect
left join overlap using (segment_id)
left join lateral (select known_until > starts_at and is_judged as is_cut) cut on true
left join lateral billing_segment_outcome(suspect.status, known_until, suspect.ended_at) judged on is_cut
where segment.organization_id between %(first_organization)s and %(last_organization)s and segment.id = suspect.segment_id;

-- name: flush_segments
-- Move the segments that changes have closed from the rows of their instances to where segments are charged, and bring what billing
-- did not write itself to where its charges end. One statement, so that a row is emptied of exactly what was read from it under
-- its lock. The row to write is looked for by its id alone: one that was waited for may belong to another organization of the
-- range since. Returns whether any segment ran under a name that is the number of no plan.
with
kept as materialized (
    select instance, coalesce(last_billed_at, created_at) as watermark,
        not coalesce(instance.xmin = sealed_by, false) or %(everything)s as is_unsealed
    from vps_instances instance
    where organization_id between %(first_organization)s and %(last_organization)s
      and id between %(first_instance)s and %(last_instance)s
      and (pending_segments is not null
           or (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s))
              and coalesce(last_billed_at, created_at) <= %(as_of)s - interval '1 hour'
              and (not coalesce(instance.xmin = sealed_by, false) or %(everything)s
                   or coalesce(last_billed_at, created_at) < rated_until))
    order by organization_id, id
    for no key update
),
suspect as materialized (
    select *
    from (
        select (instance).organization_id, (instance).id as instance_id,
            least(case when isfinite(watermark) then watermark end, (instance).pending_segments[1].started_at) as starts_at
        from kept where is_unsealed
    ) row_of_others
    where isfinite(starts_at)
),
-- include: known_hours
,
closed as (
    select (instance).id as instance_id, segment.*
    from kept, unnest((instance).pending_segments) with ordinality
        segment (plan_id, status, backups, started_at, ended_at, closed_at, reason, place_in_row)
),
uncharged as (
    select instance_id,
        array_agg(row(plan_id, status, backups, greatest(started_at, known_until), ended_at, closed_at, reason)::billing_pending_segment
            order by place_in_row) as segments
    from (
        select closed.*, known.known_until
        from closed
        left join (
            select instance_id, place_in_row, max(ends_at) as known_until
            from closed join event using (instance_id)
            where event.starts_at < closed.ended_at and event.ends_at > closed.started_at
            group by instance_id, place_in_row
        ) known using (instance_id, place_in_row)
    ) one
    where coalesce(known_until < ended_at, true)
    group by instance_id
),
filed as (
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome, compared)
    select segment.*, true
    from kept join uncharged on instance_id = (instance).id, billing_segments_of(instance, segments) segment
    returning plan_id
),
placed as (
    select (instance).id as instance_id, watermark, is_unsealed, (instance).organization_id,
        case when isfinite(watermark) then greatest(watermark, (instance).rated_until, known_until,
            (instance).pending_segments[cardinality((instance).pending_segments)].ended_at) end as known_until
    from kept
    left join (select instance_id, max(ends_at) as known_until from event group by instance_id) known
        on known.instance_id = (instance).id
),
sealed as (
    update vps_instances instance
    set pending_segments = null,
        last_billed_at = case when known_until > watermark then known_until else last_billed_at end,
        rated_from = coalesce(rated_from, case when known_until <= %(as_of)s then known_until end),
        rated_until = case when known_until > watermark or rated_from is null and known_until <= %(as_of)s
            then known_until else rated_until end,
        sealed_by = pg_current_xact_id()::xid
    from placed
    where instance.organization_id between %(first_organization)s and %(last_organization)s
      and instance.id = instance_id
),
noted as (
    insert into billing_charged_until (instance_id, organization_id)
    select instance_id, organization_id from placed where is_unsealed
    on conflict do nothing
)
select exists (select from filed where plan_id is null or plan_id not in (select plan_id::text from plan_price_versions));

-- name: seal_charged
-- After an ordinary hour: compare the rows that billing had not written itself before, and seal them. Returns whether any of
-- their hours was known already, and the batch has to be rolled back.
with
suspect as materialized (
    select organization_id, id as instance_id, last_billed_at - interval '1 hour' as starts_at
    from vps_instances
    where organization_id between %(first_organization)s and %(last_organization)s
      and id = any (%(unsealed)s)
),
-- include: known_hours
,
sealed as (
    update vps_instances instance
    set sealed_by = pg_current_xact_id()::xid
    where organization_id between %(first_organization)s and %(last_organization)s
      and id = any (%(unsealed)s)
),
noted as (
    insert into billing_charged_until (instance_id, organization_id)
    select instance_id, organization_id from suspect
    on conflict do nothing
)
select exists (select from event join suspect using (instance_id) where event.ends_at > suspect.starts_at);
