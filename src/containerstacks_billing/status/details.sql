-- What admins see on the status page. Every list is bounded and read by index or from a table that stays small.

-- name: quarantine_first
-- The instances that have been quarantined or held longest.
with longest as materialized (
    select * from billing_quarantine order by first_seen_at, organization_id, instance_id, segment_id limit %(limit)s
)
select reason, left(detail, 400) as detail, first_seen_at, due_hours, left(organizations.name, 200) as organization,
    left(label, 200) as label
from longest
left join organizations on organizations.id = longest.organization_id
order by first_seen_at, longest.organization_id, instance_id, segment_id;

-- name: past_due_first
-- Who owes longest: for how many instances and how much, over a thousand past-due charges of each at most.
with owing as materialized (
    select organization_id, past_due_since from billing_runways
    where empties_at <= billing_clock() and past_due_since is not null
    order by empties_at, organization_id limit %(limit)s
)
select left(organizations.name, 200) as organization, past_due_since, coalesce(instances, 0) as instances,
    coalesce(amount, 0) as amount, coalesce(labels, '{}') as labels
from owing
left join organizations on organizations.id = owing.organization_id
left join lateral (
    select count(distinct vps_instance_id)::integer as instances, sum(total_amount) as amount,
        array_remove((array_agg(distinct left(label, 80)))[1:3], null) as labels
    from (
        select vps_instance_id, total_amount from vps_billing_cycles cycle
        where cycle.organization_id = owing.organization_id and status = 'failed' and run_id is not null limit 1000
    ) charge
    left join vps_instances instance on instance.id = vps_instance_id
) past_due on true
order by past_due_since, owing.organization_id;

-- name: runways_first
-- The wallets that will be empty soonest and owe nothing yet.
with soonest as materialized (
    select organization_id, wallet_id, burn_per_hour, empties_at from billing_runways
    where empties_at is not null and past_due_since is null
    order by empties_at, organization_id limit %(limit)s
)
select left(organizations.name, 200) as organization, balance, left(currency, 8) as currency, burn_per_hour, empties_at
from soonest
join wallets on wallets.id = soonest.wallet_id
left join organizations on organizations.id = soonest.organization_id
order by empties_at, soonest.organization_id;

-- name: announced_prices
-- The next price changes: what a plan costs per month before and after.
select left(coalesce(vps_plans.name, version.plan_id::text), 200) as plan, version.valid_from,
    case when billing_usable_price(former) then former.base_price + coalesce(former.markup_price, 0) end as before,
    case when billing_usable_price(version) then version.base_price + coalesce(version.markup_price, 0) end as after
from plan_price_versions version
join plan_price_versions former on former.plan_id = version.plan_id and former.valid_to = version.valid_from
left join vps_plans on vps_plans.id = version.plan_id
where version.valid_from > billing_clock() and version.valid_from < '9999-01-01'
order by version.valid_from, 1
limit %(limit)s;

-- name: last_leak_report
-- What the last look for leaks found, by reason.
select read_at, left(currency, 8) as currency, reasons as document from billing_leak_reports order by id desc limit 1;
