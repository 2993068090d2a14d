-- Which instances a run charged, which a dry run would charge, and why one of them does not.

-- name: charged_in_batch
-- The instances that the open batch charged, past-due hours included; one with several charges comes several times.
select vps_instance_id from vps_billing_cycles
where id between %(first_id)s and %(last_id)s and run_id = %(run_id)s
  and organization_id between %(first_organization)s and %(last_organization)s;

-- name: charged_by_run
-- The instances that a run wrote charges for.
select distinct vps_instance_id from vps_billing_cycles
where id between %(first_id)s and %(last_id)s and run_id = %(run_id)s
  and organization_id between %(first_organization)s and %(last_organization)s;

-- name: count_not_due
-- How many of the given instances are billable and have no whole hour due.
select count(*) from unnest(%(instances)s::uuid[]) given (instance_id)
join vps_instances instance on instance.id = given.instance_id
where coalesce(last_billed_at, created_at) > billing_clock() - interval '1 hour'
  and (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s));

-- name: not_charged_any_more
-- Instances that the run charged and nothing would charge now, although an hour is due or would be; with the reason.
select given.instance_id, coalesce(instance.organization_id, segment.organization_id), organizations.name,
    coalesce(instance.label, segment.label), instance.status,
    case when instance.id is null then 'deleted'
         when not (%(every_status)s or coalesce(billing_is_billable(instance.status, instance.lasting_status, %(billable_statuses)s), false))
             then 'its status is ' || coalesce(instance.lasting_status, instance.status, 'null') || ', which is not billed'
         when waiting.reason is not null then waiting.reason || ': ' || waiting.detail
         when coalesce(instance.plan_id in (select id::text from vps_plans)
             or instance.plan_id in (select provider_plan_id from vps_plans), false) then 'nothing is due of it'
         else 'its plan is unknown' end
from unnest(%(instances)s::uuid[]) given (instance_id)
left join vps_instances instance on instance.id = given.instance_id
left join (
    select distinct on (instance_id) instance_id, organization_id, label from billing_usage_segments
    where instance_id = any (%(instances)s::uuid[]) order by instance_id, started_at desc
) segment on segment.instance_id = given.instance_id
left join lateral (
    select reason, detail from billing_quarantine
    where billing_quarantine.organization_id = instance.organization_id and billing_quarantine.instance_id = given.instance_id
    order by segment_id limit 1
) waiting on true
left join organizations on organizations.id = coalesce(instance.organization_id, segment.organization_id)
where instance.id is null
   or not (coalesce(last_billed_at, instance.created_at) > billing_clock() - interval '1 hour'
           and (%(every_status)s or coalesce(billing_is_billable(instance.status, instance.lasting_status, %(billable_statuses)s), false)))
order by 3, 4, given.instance_id
limit %(limit)s;

-- name: charged_for_the_first_time
-- Instances that would be charged now and were not by the run, with what is known of why.
select given.instance_id, instance.organization_id, organizations.name, instance.label, instance.status,
    case when instance.id is null then 'deleted since; its last hours are charged'
         when instance.created_at > %(run_as_of)s - interval '1 hour' then 'it is new'
         when exists (select from billing_decisions decision
                      where decision.organization_id = instance.organization_id
                        and decision.instance_id = given.instance_id and decided_at > %(run_as_of)s) then 'it was released'
         else 'run ' || %(run_id)s::text || ' found nothing due of it' end
from unnest(%(instances)s::uuid[]) given (instance_id)
left join vps_instances instance on instance.id = given.instance_id
left join organizations on organizations.id = instance.organization_id
order by 3, 4, given.instance_id
limit %(limit)s;
