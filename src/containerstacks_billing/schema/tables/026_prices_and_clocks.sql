-- Prices whose time is not as simple as that of 015: the database's clock may have been ahead, and an announced price may have begun
-- while vps_plans still shows the one of before. These take the place of the functions of the same names there.

-- The instant from which a price that is set at some instant can hold. The time of prices never goes back: where the clock was
-- set back, hours up to the latest instant that was ever billed may be charged already at what was in force then. And what
-- was recorded for later than that, and not announced, is of a time that was taken back; the host's word of now is newer, so
-- it is forgotten, or it would come into force a second time against that word.
create or replace function billing_begin_of_price(plan uuid, at timestamptz) returns timestamptz
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    begins timestamptz := greatest(at, (select max(as_of) from billing_runs where batches > 0));
begin
    delete from plan_price_versions v where v.plan_id = plan and v.valid_from > begins and not v.announced;
    if found then
        update plan_price_versions v set valid_to = follows.valid_from
        from (select id, coalesce(lead(valid_from) over (order by valid_from), 'infinity') as valid_from
              from plan_price_versions where plan_id = plan) follows
        where follows.id = v.id and v.valid_to <> follows.valid_from;
    end if;
    return begins;
end $$;

-- Record the price of one plan as of an instant, unless it is the one already in force then.
create or replace function billing_record_price(plan vps_plans, at timestamptz) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    -- The backup columns exist in the successor's schema only; as JSON they are null where they are missing.
    host    jsonb := to_jsonb(plan);
    current plan_price_versions;
begin
    at := billing_begin_of_price(plan.id, at);
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
-- Between the instant at which an announced price begins and the run that brings vps_plans up to it, the row still shows the
-- price of before. So an edit that leaves the prices alone must not be taken for one of a price; and one that changes a
-- single price, say that of backups, changes this one alone: the row is brought up to the others first. The comparison
-- stands in here and not in the trigger's definition, which would forbid the host to change the columns' type.
create or replace function billing_price_changed() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    before jsonb := to_jsonb(old);
    after  jsonb := to_jsonb(new);
    begun  plan_price_versions;
    shown  vps_plans;
begin
    if (before -> 'base_price', before -> 'markup_price', before -> 'backup_price_hourly', before -> 'backup_upcharge_hourly')
        is distinct from
       (after -> 'base_price', after -> 'markup_price', after -> 'backup_price_hourly', after -> 'backup_upcharge_hourly')
    then
        select * into begun from plan_price_versions v
        where v.plan_id = new.id and v.announced and v.valid_from <= billing_clock() and billing_clock() < v.valid_to;
        if tg_op = 'UPDATE' and begun.id is not null
            and coalesce(current_setting('containerstacks_billing.showing_price', true), '') <> 'on'
        then
            perform set_config('containerstacks_billing.showing_price', 'on', true);
            update vps_plans p
            set base_price = case when new.base_price = old.base_price then begun.base_price else new.base_price end,
                markup_price = case when new.markup_price = old.markup_price then begun.markup_price else new.markup_price end
            where p.id = new.id returning p.* into shown;
            perform set_config('containerstacks_billing.showing_price', 'off', true);
            perform billing_record_price(shown, billing_clock());
        else
            perform billing_record_price(new, billing_clock());
        end if;
    end if;
    return null;
exception when others then
    raise warning 'billing could not record the price of a plan: %', sqlerrm;
    return null;
end $$;
