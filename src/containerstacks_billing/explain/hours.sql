-- The hours of one instance: what was charged, what was not and why not, from every table that knows.
--
-- An instance may have belonged to several organizations; each of them has its own charges, and the index of charges is led
-- by the organization. A charge may have begun long before the first instant that is asked for (past-due hours in one row,
-- a catch-up after an outage), so the last charge that starts before it is looked up by itself, backwards through the index.

-- name: instance_record
-- The row of an instance, if it is still there, with its watermark and the policy in force now.
-- A date that is none, or of another age, is null here; billing has quarantined such an instance by itself.
select instance.id as instance_id, instance.organization_id, instance.label, instance.plan_id as plan, instance.status,
    case when instance.created_at between '1900-01-01' and '9998-01-01' then instance.created_at end as created_at,
    case when rated_from between '1900-01-01' and '9998-01-01' then rated_from end as rated_from,
    case when rated_until between '1900-01-01' and '9998-01-01' then rated_until end as rated_until,
    case when coalesce(last_billed_at, instance.created_at) between '1900-01-01' and '9998-01-01'
         then coalesce(last_billed_at, instance.created_at) end as watermark,
    billing_has_backups(instance) as backups,
    (select billing_metered_status(coalesce(instance.lasting_status, instance.status), policy) from billing_policies policy
     where policy.valid_from <= billing_clock() and billing_clock() < policy.valid_to) as billable,
    (select name from vps_plans where vps_plans.id::text = instance.plan_id
        or provider_plan_id = instance.plan_id order by vps_plans.id::text = instance.plan_id desc limit 1) as plan_name
from vps_instances instance
where instance.id = %(instance)s;

-- name: segments_of_instance
-- Every closed part of the life of an instance, oldest first.
select id as segment_id, organization_id, label, plan_id as plan, status, backups, started_at as starts_at,
    ended_at as ends_at, charge_until, closed_at, reason, rated_from, outcome, run_id
from billing_closed_segments()
where instance_id = %(instance)s
order by started_at, ended_at;

-- name: former_organizations_of_instance
-- The organizations that the instance left. One that it left in the instant of its watermark has charges of it and no segment.
select organization_id from billing_charged_until where instance_id = %(instance)s;

-- name: organizations_charged_for_instance
-- The organizations that were charged for an instance of which nothing else is left; reads all charges where there is no index.
select distinct organization_id from vps_billing_cycles where vps_instance_id = %(instance)s;

-- name: charges_of_instance
-- The charges and the host's own billed rows of an instance that overlap a span, for the organizations it belonged to.
select charge.id as charge_id, charge.organization_id, billing_period_start as starts_at, billing_period_end as ends_at,
    hourly_rate, total_amount as amount, status, payment_transaction_id as entry_id, past_due_since, run_id
from (
    select * from vps_billing_cycles
    where organization_id = any (%(organizations)s) and vps_instance_id = %(instance)s
      and billing_period_start >= %(from)s and billing_period_start < %(until)s
    union all
    select before.*
    from unnest(%(organizations)s::uuid[]) one (organization_id), lateral (
        select * from vps_billing_cycles
        where vps_billing_cycles.organization_id = one.organization_id and vps_instance_id = %(instance)s
          and billing_period_start < %(from)s
        order by billing_period_start desc limit 1
    ) before
    where before.billing_period_end > %(from)s
) charge
where billing_period_start between '1900-01-01' and billing_period_end and billing_period_end < '9998-01-01'
  and billing_period_start < billing_period_end and (run_id is not null or status = 'billed')
order by billing_period_start, charge.id;

-- name: waived_hours_of_instance
-- Hours of an instance that an operator waived; segment 0 is the open one.
select segment_id, waived_from as starts_at, waived_to as ends_at, decided_at, decided_by, reason
from billing_decisions
where organization_id = any (%(organizations)s) and instance_id = %(instance)s and waived_from < waived_to
order by waived_from, id;

-- name: quarantine_of_instance
-- Why hours of an instance wait, and what to do; segment 0 is the open one.
select organization_id, segment_id, reason, detail, due_hours, first_seen_at
from billing_quarantine
where organization_id = any (%(organizations)s) and instance_id = %(instance)s
order by segment_id;
