-- What is billable, dated. A change of BILLABLE_STATUSES takes effect with the run that brings it and never before.

-- name: policy_in_force
-- The policy that holds now, and whether the change to it is finished.
select billable_statuses, partial_hour, transient_statuses, creation_fee, id, valid_from::text, settled from billing_policies where valid_to = 'infinity';

-- name: policy_now
-- The policy that holds now, without holding it.
select billable_statuses, partial_hour, transient_statuses, creation_fee from billing_policies where valid_to = 'infinity';

-- name: rewrite_first_policy
-- Before anything was ever billed the settings are simply what they are, and hold since ever: also for hours that segments closed
-- between adoption and the first run.
update billing_policies
set billable_statuses = %(billable_statuses)s, partial_hour = %(partial_hour)s, transient_statuses = %(transient_statuses)s,
    creation_fee = %(creation_fee)s
where valid_from = '-infinity' and valid_to = 'infinity'
  and not exists (select from billing_runs where outcome <> 'held')
returning true;

-- name: judge_first_segments
-- Judge the segments that were flushed under the policy that never was in force. Pending ones are judged when they are flushed.
update billing_usage_segments segment set outcome = judged.outcome, charge_until = judged.charge_until
from (
    select id, judged.outcome, judged.charge_until
    from billing_usage_segments one, billing_segment_outcome(one.status, one.started_at, one.ended_at) judged
    where coalesce(one.outcome in ('not billable', 'free'), true) and one.run_id is null and one.reason <> 'restored'
) judged
where judged.id = segment.id
  and (segment.outcome, segment.charge_until) is distinct from (judged.outcome, judged.charge_until);

-- name: end_policy
-- Let the policy in force end at an instant; no row when it ended meanwhile.
update billing_policies set valid_to = %(as_of)s
where id = %(policy)s and valid_from < %(as_of)s and valid_to = 'infinity' returning true;

-- name: begin_policy
-- Let the new policy begin there. Its change is not finished while segments are open that began under the old one.
insert into billing_policies (billable_statuses, partial_hour, transient_statuses, creation_fee, valid_from, settled)
values (%(billable_statuses)s, %(partial_hour)s, %(transient_statuses)s, %(creation_fee)s, %(as_of)s, false);

-- name: close_segments_of_old_policy
-- Close some of the open segments of instances that were billable and are not any more, or the other way round, at the instant of
-- the change, and of those whose status is not transient any more; each is judged by the policy that it began under, so under 'full'
-- its started hour still counts to its end. Repeated until nothing is left to close.
with change as (
    select old.billable_statuses as old_statuses, new.billable_statuses as new_statuses,
        new.transient_statuses, new.valid_from as changed_at
    from billing_policies new join billing_policies old on old.valid_to = new.valid_from
    where not new.settled
),
segment as (
    select instance.organization_id, id, label, plan_id, used as status, billing_has_backups(instance) as backups, rated_from,
        greatest(coalesce(last_billed_at, created_at), rated_until) as started_at, changed_at,
        billing_segment_end(used, greatest(coalesce(last_billed_at, created_at), rated_until), changed_at) as ended_at
    from vps_instances instance, change,
    lateral (
        select coalesce(lasting_status, status) as used,
            case when status = any (transient_statuses) then coalesce(lasting_status, status) else status end as becomes
    ) judged
    where ((coalesce(used = any (old_statuses), false) or old_statuses = '{*}')
            <> (coalesce(becomes = any (new_statuses), false) or new_statuses = '{*}')
           or used <> becomes)
      and organization_id between %(first_organization)s and %(last_organization)s
      and greatest(coalesce(last_billed_at, created_at), rated_until) < changed_at
      and isfinite(greatest(coalesce(last_billed_at, created_at), rated_until))
    order by organization_id, id
    limit 5000
    for no key update of instance
),
moved as (
    update vps_instances instance set last_billed_at = ended_at, rated_until = ended_at,
        sealed_by = case when instance.xmin = instance.sealed_by then pg_current_xact_id()::xid end
    from segment where instance.id = segment.id
)
insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
    charge_until, closed_at, reason, rated_from, outcome)
select organization_id, id, label, plan_id, status, backups, started_at, ended_at, judged.charge_until, changed_at, 'policy',
    rated_from, judged.outcome
from segment, billing_segment_outcome(status, started_at, ended_at) judged;

-- name: end_lasting_statuses
-- What stands in a status that is not transient any more is judged by its own, in a range of organizations.
update vps_instances instance
set lasting_status = null, sealed_by = case when instance.xmin = instance.sealed_by then pg_current_xact_id()::xid end
from billing_policies policy
where organization_id between %(first_organization)s and %(last_organization)s
  and valid_to = 'infinity' and lasting_status is not null and not coalesce(status = any (transient_statuses), false);

-- name: settle_policy
-- The change is finished.
update billing_policies set settled = true where not settled;
