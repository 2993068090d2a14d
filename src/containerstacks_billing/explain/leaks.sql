-- Leaks: instances and volumes that exist and bring in nothing, each with one reason and the price it would have.
--
-- An instance has one reason, the first that applies, so no money is counted twice. Every row of the fleet is read once, in
-- parallel where the planner likes; charges are looked up for the few instances alone whose watermark is two hours old and
-- that nothing else explains. A row that cannot be judged (no date, no plan, no wallet) is a leak with a reason, never an error.

-- part: known_rate
-- The names of plans with their hourly rates now; arrays, because a common table expression would keep the instances from being
-- read in parallel.
known_rate as not materialized (
    select name, plain::numeric / 100000000 as plain, with_backups::numeric / 100000000 as with_backups
    from unnest(%(plan_names)s::text[], %(rates)s::bigint[], %(rates_with_backups)s::bigint[])
        as plan (name, plain, with_backups)
)

-- name: leaking_instances
-- Instances that nothing is billed for, with the reason, since when, and what one of their plan costs per hour.
with
-- include: payers, known_rate
,
first_quarantine as (
    select distinct on (organization_id, instance_id) organization_id, instance_id, reason, detail, first_seen_at
    from billing_quarantine
    where organization_id between %(first_organization)s and %(last_organization)s
    order by organization_id, instance_id, segment_id
),
judged as (
    select instance.organization_id, instance.id as instance_id, instance.label, provider_instance_id, instance.plan_id as plan,
        instance.status, case when billing_has_backups(instance) then with_backups else plain end as hourly,
        payer.past_due_since, waiting.reason as quarantined_for, waiting.detail, waiting.first_seen_at, watermark,
        instance.created_at,
        case
            when billable is not true then
                case when coalesce(watermark > %(as_of)s::timestamptz - interval '1 hour', false) then null else 'not billable' end
            when payer.wallet_id is null then 'no wallet'
            when coalesce(plain, 0) = 0 then 'no price'
            when waiting.first_seen_at <= %(as_of)s::timestamptz - interval '1 day'
                then case waiting.reason when 'held' then 'held' else 'quarantined' end
            when payer.past_due_since <= %(as_of)s::timestamptz - interval '1 day' then 'past due'
            when waiting.reason is null and watermark <= %(as_of)s::timestamptz - interval '2 hours'
                and instance.created_at <= %(as_of)s::timestamptz - interval '2 hours'
                and not exists (
                    select from vps_billing_cycles charge
                    where charge.organization_id = instance.organization_id and charge.vps_instance_id = instance.id
                      and billing_period_start >= instance.created_at - interval '1 day')
                then 'never billed'
            when billing_has_backups(instance) and with_backups = plain then 'backups without a price'
        end as reason
    from vps_instances instance
    left join known_rate on known_rate.name = instance.plan_id
    left join payer on payer.organization_id = instance.organization_id
    left join first_quarantine waiting
        on waiting.organization_id = instance.organization_id and waiting.instance_id = instance.id,
    lateral (
        select coalesce(last_billed_at, created_at) as watermark,
            %(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s) as billable
    ) at
    where instance.organization_id between %(first_organization)s and %(last_organization)s
)
select reason, judged.organization_id, organizations.name as organization, instance_id, label, provider_instance_id,
    coalesce((select name from vps_plans where id::text = plan), plan) as plan, status,
    case when reason = 'backups without a price' then null when hourly > 0 then hourly end as hourly, quarantined_for, detail,
    case when isfinite(since) and since between '1900-01-01' and '9998-01-01' then since end as since
from judged
left join organizations on organizations.id = judged.organization_id,
lateral (
    select case reason when 'held' then first_seen_at when 'quarantined' then first_seen_at when 'past due' then past_due_since
        when 'not billable' then watermark else coalesce(judged.created_at, watermark) end as since
) begin
where reason is not null
order by judged.organization_id, instance_id;

-- name: has_completed_run
-- Whether a run has ever completed; until then the policy in the database is the default of the schema.
select exists (select from billing_runs where outcome = 'completed');

-- name: rows_of_one_server
-- Instances that are charged though an older row with the same id at the provider is charged too: one server, paid for twice.
-- Only rows that share an id are looked up among the charges of the last two days.
with
-- include: known_rate
,
shared as materialized (
    select * from vps_instances instance
    where organization_id between %(first_organization)s and %(last_organization)s
      and provider_instance_id in (
        select provider_instance_id from vps_instances
        where provider_instance_id <> '' group by provider_instance_id having count(*) > 1)
)
select organization_id, organizations.name as organization, instance_id, label, provider_instance_id,
    coalesce((select name from vps_plans where id::text = plan), plan) as plan, status, since, hourly
from (
    select shared.organization_id, shared.id as instance_id, shared.label, provider_instance_id, shared.plan_id as plan,
        shared.status, case when shared.created_at between '1900-01-01' and '9998-01-01' then shared.created_at end as since,
        case when billing_has_backups(shared::vps_instances) then with_backups else known_rate.plain end as hourly,
        row_number() over (partition by provider_instance_id order by shared.created_at, shared.id) as number
    from shared
    left join known_rate on known_rate.name = shared.plan_id
    where exists (
        select from vps_billing_cycles charge
        where charge.organization_id = shared.organization_id and charge.vps_instance_id = shared.id
          and billing_period_start > %(as_of)s::timestamptz - interval '2 days' and run_id is not null and total_amount > 0)
) numbered
left join organizations on organizations.id = organization_id
where number > 1
order by organization_id, instance_id;

-- name: has_volumes
-- Whether the host keeps volumes and what it billed of them, in columns that are known here.
select count(*) = 7
from information_schema.columns
where table_schema = 'public'
  and (table_name = 'volumes' and column_name in ('id', 'organization_id', 'label', 'hourly_price', 'created_at')
    or table_name = 'volume_billing' and column_name in ('volume_id', 'billing_period_end'));

-- name: leaking_volumes
-- Volumes of the host, which no program charges, at the host's own hourly price; 0 stands for none.
select organization_id, organizations.name as organization, volumes.id as volume_id, volumes.label,
    case when hourly_price > 0 and hourly_price < 1000000 then hourly_price end as hourly, case when volumes.created_at between '1900-01-01' and '9998-01-01' then volumes.created_at end as since
from volumes
left join organizations on organizations.id = organization_id
where organization_id between %(first_organization)s and %(last_organization)s
  and not exists (select from volume_billing where volume_id = volumes.id and billing_period_end > billing_clock() - interval '1 day')
order by organization_id, volumes.id;

-- part: inventory
-- The lines of the provider's list.
inventory as (
    select * from unnest(%(ids)s::text[], %(labels)s::text[], %(plans)s::text[], %(backups)s::boolean[])
        as line (provider_instance_id, label, plan, has_backups)
)

-- name: inventory_not_here
-- What the provider has and no row knows, at the price of its plan where that is a plan of ours.
with
-- include: inventory, known_rate
select provider_instance_id, inventory.label, inventory.plan, case when has_backups then with_backups else plain end as hourly
from inventory
left join known_rate on known_rate.name = inventory.plan
where not exists (select from vps_instances where vps_instances.provider_instance_id = inventory.provider_instance_id)
order by provider_instance_id;

-- name: not_in_inventory
-- Instances that are charged and that the provider does not have: the customer pays for nothing. Only those that are missing
-- there are looked up among the charges of the last two days.
with
-- include: inventory, known_rate
,
missing as materialized (
    select * from vps_instances instance
    where organization_id between %(first_organization)s and %(last_organization)s
      and coalesce(created_at <= %(taken_at)s - interval '1 hour', true)
      and not exists (select from inventory where inventory.provider_instance_id = instance.provider_instance_id)
)
select missing.organization_id, organizations.name as organization, missing.id as instance_id, missing.label,
    missing.provider_instance_id,
    coalesce((select name from vps_plans where vps_plans.id::text = missing.plan_id), missing.plan_id) as plan,
    missing.status, case when missing.created_at between '1900-01-01' and '9998-01-01' then missing.created_at end as since,
    case when billing_has_backups(missing::vps_instances) then with_backups else plain end as hourly
from missing
left join organizations on organizations.id = missing.organization_id
left join known_rate on known_rate.name = missing.plan_id
where exists (
    select from vps_billing_cycles charge
    where charge.organization_id = missing.organization_id and charge.vps_instance_id = missing.id
      and billing_period_start > %(as_of)s::timestamptz - interval '2 days' and run_id is not null and total_amount > 0)
order by missing.organization_id, missing.id;

-- name: backups_in_inventory_alone
-- Instances whose provider keeps backups and whose row says that there are none, with what the backups would cost per hour.
with
-- include: inventory, known_rate
select instance.organization_id, organizations.name as organization, instance.id as instance_id, instance.label,
    instance.provider_instance_id,
    coalesce((select name from vps_plans where vps_plans.id::text = instance.plan_id), instance.plan_id) as plan, instance.status, nullif(with_backups - plain, 0) as hourly
from inventory
join vps_instances instance using (provider_instance_id)
left join organizations on organizations.id = instance.organization_id
left join known_rate on known_rate.name = instance.plan_id
where has_backups and not billing_has_backups(instance)
order by instance.organization_id, instance.id;

-- name: insert_leak_report
-- Keep a report.
insert into billing_leak_reports (read_at, found_by, currency, has_inventory, reasons)
values (%(read_at)s, %(found_by)s, %(currency)s, %(has_inventory)s, %(reasons)s::jsonb);

-- name: remove_old_leak_reports
-- Keep the newest reports.
delete from billing_leak_reports where id <= (select max(id) from billing_leak_reports) - %(kept)s::bigint;
