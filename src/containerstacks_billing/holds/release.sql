-- What an operator decides about hours that are held: charge them, charge the last of them, or none.
--
-- The three decisions are one: of the hours that an instance has due, the N most recent are kept and the older ones waived;
-- all are kept to charge, none to waive. Kept hours are approved (charge_until), so that the next run charges them by the
-- same statements as every other hour. Waived hours must never become due again, and must stay explained:
--
--   open segment     the watermark moves over them, by compare-and-set. The decision holds [waived_from, waived_to).
--   closed segment   is settled as 'waived'. If a part of it is kept, it ends where that part begins, and the part becomes a
--                    segment of its own that is still due. So the segments tile the same time as before.
--
-- What is still kept in the row of an instance is filed first, as by a batch, since only a segment can be settled.
--
-- It runs under the lease and fence of a run, with the same wallets locked in the same order, so it never interleaves with a
-- batch. If the host changes an instance in between, fewer watermarks move than were decided about, and the whole
-- transaction is rolled back and derived again.

-- part: due
-- Every segment that is due, with its hours and those of them that are not approved yet.
due as (
    select organization_id, instance_id, null::bigint as segment_id, starts_at,
        starts_at + hours * interval '1 hour' as until, hours::numeric as hours,
        hours - case when released_until > starts_at
            then least(hours, floor(extract(epoch from released_until - starts_at) / 3600)) else 0 end as unapproved_hours
    from open_segment left join released using (organization_id, instance_id)
    union all
    select organization_id, instance_id, segment_id, starts_at, until, extract(epoch from until - starts_at) / 3600,
        unapproved_hours
    from closed_segment
)

-- part: held
-- The instances that a run would leave out for having more hours due than were approved.
held as (
    select organization_id, instance_id
    from due
    group by organization_id, instance_id
    having sum(unapproved_hours) > %(max_catch_up_hours)s
)

-- name: plan_release
-- Cut the organizations that have held instances into ranges, and count those instances.
with
-- include: plan_rates, released, pieces, due, held
,
organization as (
    select organization_id, count(*) as instances from held group by organization_id
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

-- name: organization_of_instance
-- Whose an instance is, or was when it was deleted: all organizations that can have hours of it due.
select organization_id from vps_instances where id = %(instance_id)s
union
select organization_id from billing_usage_segments where instance_id = %(instance_id)s and outcome is null;

-- name: decide
-- Record the decision about every segment of the held instances of a range, oldest hours waived first; returns the range of
-- its numbers.
with
-- include: plan_rates, released, pieces, due, held
,
segment_by_age as (
    select due.*, sum(hours) over (partition by organization_id, instance_id
        order by starts_at desc, segment_id desc rows unbounded preceding) - hours as newer_hours
    from due join held using (organization_id, instance_id)
),
judged as (
    select *, least(hours, greatest(%(kept_hours)s - newer_hours, 0)) as kept from segment_by_age
),
decided as (
    insert into billing_decisions (organization_id, instance_id, segment_id, decision, charge_until, waived_from, waived_to,
        decided_at, decided_by, reason)
    select organization_id, instance_id, coalesce(segment_id, 0), %(decision)s,
        case when kept > 0 then greatest(%(as_of)s, until) end,
        case when kept < hours then starts_at end,
        case when kept <= 0 then until when kept < hours then until - kept * interval '1 hour' end,
        %(as_of)s, %(decided_by)s, %(reason)s
    from judged
    order by organization_id, instance_id, starts_at
    returning id
)
select min(id), max(id) from decided;

-- name: expected_moves
-- How many watermarks and how many segments the decisions waive hours of.
select count(*) filter (where segment_id = 0), count(*) filter (where segment_id > 0)
from billing_decisions
where id between %(first_decision)s and %(last_decision)s and waived_to is not null;

-- name: held_hours
-- What each instance that was decided about has due at this moment, in hours and in money; no money where it has no price.
-- With it the reason why it is listed in the quarantine: another than that it is held, where there is one.
with
-- include: plan_rates, released, pieces, due
,
decided as (
    select distinct organization_id, instance_id
    from billing_decisions where id between %(first_decision)s and %(last_decision)s
),
hours_due as (
    select organization_id, instance_id, sum(hours) as hours from due group by organization_id, instance_id
),
priced as (
    select organization_id, instance_id, sum(amount) as amount from piece group by organization_id, instance_id
)
select decided.organization_id, decided.instance_id,
    coalesce((select label from vps_instances where id = decided.instance_id),
        (select label from billing_usage_segments segment where segment.organization_id = decided.organization_id
         and segment.instance_id = decided.instance_id order by started_at desc limit 1)),
    (select quarantine.reason from billing_quarantine quarantine
     where quarantine.organization_id = decided.organization_id and quarantine.instance_id = decided.instance_id
     order by quarantine.reason = 'held', quarantine.segment_id limit 1),
    coalesce(hours, 0), case when hours > 0 then amount else 0 end
from decided
left join hours_due using (organization_id, instance_id)
left join priced using (organization_id, instance_id)
order by 1, 2;

-- name: move_waived_watermarks
-- Move the watermarks over the hours that were waived, where they still stand at the start of those.
update vps_instances instance
set last_billed_at = waived_to, rated_until = waived_to, sealed_by = pg_current_xact_id()::xid
from billing_decisions decision
where decision.id between %(first_decision)s and %(last_decision)s
  and decision.segment_id = 0 and waived_to is not null
  and instance.organization_id = decision.organization_id and instance.id = decision.instance_id
  and instance.sealed_by in (instance.xmin, pg_current_xact_id()::xid)
  and coalesce(instance.last_billed_at, instance.created_at) = waived_from;

-- name: keep_parts_of_segments
-- Make a segment of its own out of the part that is kept.
insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
    charge_until, closed_at, reason, rated_from)
select segment.organization_id, segment.instance_id, label, plan_id, status, backups, waived_to, ended_at,
    segment.charge_until, closed_at, segment.reason, rated_from
from billing_usage_segments segment
join billing_decisions decision on decision.segment_id = segment.id and decision.organization_id = segment.organization_id
where decision.id between %(first_decision)s and %(last_decision)s
  and segment.outcome is null and waived_from = started_at and waived_to < segment.charge_until;

-- name: waive_segments
-- Settle the segments that were waived, each up to where the kept part begins.
update billing_usage_segments segment
set outcome = 'waived', charge_until = waived_to,
    ended_at = case when waived_to < segment.charge_until then waived_to else ended_at end
from billing_decisions decision
where decision.id between %(first_decision)s and %(last_decision)s
  and decision.segment_id = segment.id and decision.organization_id = segment.organization_id
  and segment.outcome is null and waived_from = started_at;

-- name: strike_off
-- Take what was decided about off the list of what is held; the next run puts back what it cannot charge.
delete from billing_quarantine quarantine
using billing_decisions decision
where decision.id between %(first_decision)s and %(last_decision)s and quarantine.reason = 'held'
  and quarantine.organization_id = decision.organization_id and quarantine.instance_id = decision.instance_id;
