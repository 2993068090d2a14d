-- Dated prices. The host keeps one price per plan and overwrites it; an hour must be rated at the price that was in
-- force at its start, so every change becomes a version with from and to.
--
-- The versions of a plan are contiguous and do not overlap: the first is in force since ever, the last for ever. A price
-- that is entered for the future is a version that begins then; vps_plans is brought up to it by the first run after
-- that instant, and the trigger finds nothing new. A plan that is deleted keeps its versions: its instances are
-- quarantined until they have another plan, and what they used until then is charged at the last known price.
--
-- A price that nobody could be charged at (negative, missing, no number) never was in force: the one that repairs it takes
-- its place from where it began. Otherwise the history would keep the plan unusable for ever, whatever the host shows.

create table if not exists plan_price_versions (
    id                     bigint generated always as identity primary key,
    plan_id                uuid        not null,
    valid_from             timestamptz not null,
    valid_to               timestamptz not null default 'infinity',
    base_price             numeric,
    markup_price           numeric,
    backup_price_hourly    numeric,
    backup_upcharge_hourly numeric,
    announced              boolean     not null default false,
    recorded_at            timestamptz not null default clock_timestamp(),
    recorded_by            text        not null default session_user,
    reason                 text,
    constraint plan_price_versions_one_per_instant unique (plan_id, valid_from),
    constraint plan_price_versions_forward check (valid_from < valid_to)
);
comment on table plan_price_versions is 'What a plan costs per month, from when until when; no foreign key: a deleted plan keeps its prices';
comment on column plan_price_versions.announced is 'entered ahead of its time; vps_plans does not show it yet';

-- Whether hours can be charged at a price at all; charging.sql leaves out every plan with a version that cannot.
create or replace function billing_usable_price(price plan_price_versions) returns boolean
    language sql immutable parallel safe
as $$
    select coalesce(price.base_price between -100000000 and 100000000, false)
        and coalesce(price.markup_price, 0) between -100000000 and 100000000
        and coalesce(price.backup_price_hourly, 0) between 0 and 100000000
        and coalesce(price.backup_upcharge_hourly, 0) between 0 and 100000000
        and price.base_price + coalesce(price.markup_price, 0) >= 0
$$;

-- Record the price of one plan as of an instant, unless it is the one already in force then.
create or replace function billing_record_price(plan vps_plans, at timestamptz) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    -- The backup columns exist in the successor's schema only; as JSON they are null where they are missing.
    host    jsonb := to_jsonb(plan);
    current plan_price_versions;
begin
    select * into current from plan_price_versions v
    where v.plan_id = plan.id and v.valid_from <= at and at < v.valid_to
    for update;
    if current.id is not null and (current.base_price, current.markup_price, current.backup_price_hourly, current.backup_upcharge_hourly)
        is not distinct from (plan.base_price::numeric, plan.markup_price::numeric,
            (host ->> 'backup_price_hourly')::numeric, (host ->> 'backup_upcharge_hourly')::numeric)
    then
        return;
    end if;
    -- What was announced says base and markup only; the prices of backups are the host's at any time.
    update plan_price_versions v
    set backup_price_hourly = (host ->> 'backup_price_hourly')::numeric,
        backup_upcharge_hourly = (host ->> 'backup_upcharge_hourly')::numeric
    where v.plan_id = plan.id and v.announced and v.valid_from > at;
    if current.id is not null and not billing_usable_price(current) then
        update plan_price_versions
        set base_price = plan.base_price, markup_price = plan.markup_price,
            backup_price_hourly = (host ->> 'backup_price_hourly')::numeric,
            backup_upcharge_hourly = (host ->> 'backup_upcharge_hourly')::numeric, announced = false
        where id = current.id;
        return;
    end if;
    if current.id is not null and current.valid_from = at then
        delete from plan_price_versions where id = current.id;
    elsif current.id is not null then
        update plan_price_versions set valid_to = at where id = current.id;
    end if;
    insert into plan_price_versions (plan_id, valid_from, valid_to, base_price, markup_price, backup_price_hourly,
        backup_upcharge_hourly)
    values (plan.id,
        case when exists (select from plan_price_versions where plan_id = plan.id) then at else '-infinity' end,
        coalesce(current.valid_to, 'infinity'), plan.base_price, plan.markup_price,
        (host ->> 'backup_price_hourly')::numeric, (host ->> 'backup_upcharge_hourly')::numeric);
end $$;

-- Whatever happens in here, the host's own statement succeeds: a price that could not be recorded is recorded by
-- billing_sync_prices() (017), which every run calls before it rates anything.
--
-- An edit that leaves the prices alone is none of a price. It must not be taken for one: between the instant at which an
-- announced price begins and the run that brings vps_plans up to it, the row still shows the price of before. The
-- comparison stands in here and not in the trigger's definition, which would forbid the host to change the columns' type.
create or replace function billing_price_changed() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    before jsonb := to_jsonb(old);
    after  jsonb := to_jsonb(new);
begin
    if (before -> 'base_price', before -> 'markup_price', before -> 'backup_price_hourly', before -> 'backup_upcharge_hourly')
        is distinct from
       (after -> 'base_price', after -> 'markup_price', after -> 'backup_price_hourly', after -> 'backup_upcharge_hourly')
    then
        perform billing_record_price(new, billing_clock());
    end if;
    return null;
exception when others then
    raise warning 'billing could not record the price of a plan: %', sqlerrm;
    return null;
end $$;

drop trigger if exists billing_price_changed on vps_plans;
create trigger billing_price_changed after insert or update on vps_plans
    for each row execute function billing_price_changed();

select billing_record_price(p, '-infinity') from vps_plans p
where not exists (select from plan_price_versions v where v.plan_id = p.id);
