-- Dated prices: find a plan, list its versions, enter one.

-- name: find_plans
-- The plans that a text may mean: by id, by provider_plan_id or by exact name. An id leaves no doubt, so it wins.
with known as (
    select id, name::text, provider_plan_id::text, active, true as on_sale from vps_plans
    union all
    select plan_id, null, null, false, false from plan_price_versions
    where plan_id not in (select id from vps_plans) group by plan_id
)
select id, name, provider_plan_id, active, on_sale
from known
where %(plan)s::text is null or id::text = lower(%(plan)s)
   or (provider_plan_id = %(plan)s or name = %(plan)s) and not exists (select from known where id::text = lower(%(plan)s))
order by on_sale desc, name, provider_plan_id, id;

-- name: price_versions
-- All versions of the given plans in order; no date where it is infinite, no rate where the price cannot be charged.
select plan_id, id, nullif(valid_from, '-infinity'), nullif(valid_to, 'infinity'), base_price, markup_price,
    case when billing_usable_price(version)
         then round((base_price + coalesce(markup_price, 0)) / %(hours_per_month)s, 8) end as hourly_rate,
    case when billing_usable_price(version) and coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0) > 0
         then round((base_price + coalesce(markup_price, 0)) / %(hours_per_month)s
            + coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0), 8) end as hourly_rate_with_backups,
    coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0) as backup_hourly,
    announced, valid_from <= billing_clock() and billing_clock() < valid_to as in_force, recorded_at, recorded_by, reason
from plan_price_versions version
where plan_id = any (%(plans)s)
order by plan_id, valid_from;

-- name: price_columns
-- How many digits the price columns of vps_plans take: all and those behind the point; null where they are not bounded.
select attname,
    case when atttypmod > 0 then (atttypmod - 4) >> 16 & 65535 end as digits,
    case when atttypmod > 0 then atttypmod - 4 & 2047 end as decimals
from pg_attribute
where attrelid = 'vps_plans'::regclass and attname in ('base_price', 'markup_price');

-- name: lock_plan
-- Hold the plan, so that no other transaction changes its price meanwhile.
select true from vps_plans where id = %(plan_id)s for no key update;

-- name: lock_version
-- The version that is in force at an instant, held.
select id, nullif(valid_from, '-infinity'), nullif(valid_to, 'infinity'), base_price, markup_price,
    coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0)
from plan_price_versions
where plan_id = %(plan_id)s and valid_from <= %(at)s and %(at)s < valid_to
for update;

-- name: replace_version
-- Give a version another price.
update plan_price_versions
set base_price = %(base_price)s, markup_price = %(markup_price)s, announced = %(announced)s, recorded_at = billing_clock(),
    recorded_by = %(recorded_by)s, reason = %(reason)s
where id = %(version_id)s;

-- name: split_version
-- Let a version end at an instant and another price go on from there to where it ended; backups cost what they did.
with ended as (
    update plan_price_versions version set valid_to = %(at)s
    from (select * from plan_price_versions where id = %(version_id)s) before
    where version.id = before.id
    returning before.plan_id, before.valid_to, before.backup_price_hourly, before.backup_upcharge_hourly
)
insert into plan_price_versions (plan_id, valid_from, valid_to, base_price, markup_price, backup_price_hourly,
    backup_upcharge_hourly, announced, begins_at_commit, recorded_at, recorded_by, reason)
select plan_id, %(at)s, valid_to, %(base_price)s, %(markup_price)s, backup_price_hourly, backup_upcharge_hourly,
    %(announced)s, %(begins_at_commit)s, billing_clock(), %(recorded_by)s, %(reason)s
from ended;

-- name: show_price
-- Let vps_plans show the price that is in force; its trigger finds the version there already.
update vps_plans set base_price = %(base_price)s, markup_price = %(markup_price)s
where id = %(plan_id)s and (base_price, markup_price) is distinct from (%(base_price)s, %(markup_price)s);
