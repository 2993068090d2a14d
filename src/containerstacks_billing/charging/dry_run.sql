-- What a dry run reads inside the transaction that it rolls back, after the steps of a run.

-- name: never_billed
-- Whether no run has charged anything yet: then settings hold for all hours since adoption.
select not exists (select from billing_runs where outcome <> 'held');

-- name: pending_prices
-- Prices that a run would bring: announced ones whose time has come, and changes that the trigger could not record.
select plan.name, version.base_price + coalesce(version.markup_price, 0) as recorded,
    plan.base_price + coalesce(plan.markup_price, 0) as shown, announced
from vps_plans plan
join plan_price_versions version on version.plan_id = plan.id and valid_from <= %(as_of)s and %(as_of)s < valid_to
where (version.base_price, version.markup_price) is distinct from (plan.base_price::numeric, plan.markup_price::numeric)
order by plan.name
limit 100;

-- name: forecast_organizations
-- Per organization of a range: what this batch billed and debited, how the wallet stands after it, and what is past due. The
-- batch is the only one whose charges bear the number of no run and can be seen here.
with
-- include: payers
,
bill as (
    select organization_id, sum(total_amount) as amount, count(distinct vps_instance_id) as instances,
        sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours
    from vps_billing_cycles
    where (id between %(first_id)s and %(last_id)s or run_id = %(run_id)s and past_due_since is not null)
      and run_id = %(run_id)s and status = 'billed'
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
),
owed as (
    select organization_id, sum(total_amount) as amount
    from vps_billing_cycles
    where status = 'failed' and run_id is not null
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
)
select organization_id, (select name from organizations where id = payer.organization_id) as name, coalesce(bill.instances, 0) as instances,
    coalesce(bill.hours, 0) as hours, coalesce(bill.amount, 0) as amount,
    coalesce((select -entry.amount from payment_transactions entry
        where entry.id = billing_batch_uuid(%(batch_key)s, uuid_hash_extended(payer.organization_id, 0))), 0) as debit,
    balance, billing_carry, coalesce(owed.amount, 0) as owed
from payer
left join bill using (organization_id)
left join owed using (organization_id)
where bill.amount is not null or owed.amount is not null;

-- name: forecast_quarantine
-- Which instances of a range would be quarantined or held, one row each.
select distinct on (organization_id, instance_id) organization_id, instance_id, label, reason, detail
from billing_quarantine
where organization_id between %(first_organization)s and %(last_organization)s
order by organization_id, instance_id, segment_id;

-- name: forecast_past_due
-- How many instances of a range would be past due.
select count(distinct vps_instance_id) from vps_billing_cycles
where status = 'failed' and run_id is not null
  and organization_id between %(first_organization)s and %(last_organization)s;
