-- Who changes the versions of a plan holds the row of the plan. The host does by changing it, and `prices set` asks for it; a run,
-- which brings prices up to date as it opens, did not. So it could decide by a row and by versions of which the host was just
-- replacing both: an announced price that the run was about to show took back the one that the host set in that moment, and
-- after a clock that went back the run was refused for a second version of one instant.

-- Whether the price that a plan shows is recorded as the one in force at an instant.
create or replace function billing_is_price_recorded(plan vps_plans, at timestamptz) returns boolean
    language sql stable set search_path = public, pg_temp
as $$
    select exists (
        select from plan_price_versions v
        where v.plan_id = plan.id and v.valid_from <= at and at < v.valid_to
          and (v.base_price, v.markup_price, v.backup_price_hourly, v.backup_upcharge_hourly) is not distinct from
              (plan.base_price::numeric, plan.markup_price::numeric, (to_jsonb(plan) ->> 'backup_price_hourly')::numeric,
               (to_jsonb(plan) ->> 'backup_upcharge_hourly')::numeric))
$$;

-- Let announced prices take effect in vps_plans, and record what the trigger missed. Every run begins with it; takes the place of
-- the function of 017.
--
-- The search only says where to look. What is done with a plan is decided once its row is held, by statements that see what
-- the holder before committed. A plan that somebody else holds is passed over, so nobody waits and no host is the victim of a
-- deadlock: hours are rated by the versions, whatever vps_plans shows, and the next run shows it.
create or replace function billing_sync_prices(at timestamptz) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    held uuid;
begin
    -- vps_plans shows the price of this moment, which may be later than the instant that a run bills. A price that began in
    -- between has a version of its own already, and must not be taken for one that was missed.
    at := greatest(at, billing_clock());
    for held in
        select p.id from vps_plans p
        where not billing_is_price_recorded(p, at)
           or exists (select from plan_price_versions v where v.plan_id = p.id and v.announced and v.valid_from <= at)
        for no key update of p skip locked
    loop
        -- Who held it before may have recorded a price that began after the search, and it must not begin earlier now.
        at := greatest(at, billing_clock());
        update vps_plans p set base_price = v.base_price, markup_price = v.markup_price
        from plan_price_versions v
        where p.id = held and v.plan_id = held and v.announced and v.valid_from <= at and at < v.valid_to
          and (p.base_price::numeric, p.markup_price::numeric) is distinct from (v.base_price, v.markup_price);
        update plan_price_versions set announced = false where plan_id = held and announced and valid_from <= at;
        perform billing_record_price(p, at) from vps_plans p where p.id = held and not billing_is_price_recorded(p, at);
    end loop;
    -- A plan that is deleted shows nothing, and nobody changes its prices any more.
    update plan_price_versions set announced = false
    where announced and valid_from <= at and plan_id not in (select id from vps_plans);
end $$;

-- No price begins before hours that were charged, nor before those that a run is charging at this moment: after a clock that was set
-- back those lie ahead of it. The run and the price may be committed in either order, and neither sees the other before. Only
-- the holder of the lease charges, so a run that its process left open counts until somebody else has the lease.
create or replace function billing_latest_as_of() returns timestamptz
    language sql stable security definer set search_path = public, pg_temp
as $$
    select max(as_of) from billing_runs
    where batches > 0
       or outcome is null and fencing_token = (select fencing_token from billing_leases where name = 'billing')
$$;

-- As in 026, but with the run under way.
create or replace function billing_begin_of_price(plan uuid, at timestamptz) returns timestamptz
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    begins timestamptz := greatest(at, billing_latest_as_of());
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

-- A price that the host sets begins when its transaction commits, and not when its statement ran. Until then nobody can be charged
-- at it: a transaction that stays open for hours would begin its price before hours that runs have charged at the one of before,
-- and no charge is ever rewritten. So the version is dated once more as the last thing before COMMIT. The trigger that does it is
-- on our table: one that waits on vps_plans would forbid the host to alter that table in the same transaction.
--
-- Whoever enters an instant on purpose, as `prices set --from` and a correction do, says so by begins_at_commit.

alter table plan_price_versions add column if not exists begins_at_commit boolean not null default true;
comment on column plan_price_versions.begins_at_commit is 'false: somebody named the instant from which it holds';

create or replace function billing_date_price() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    begins timestamptz := greatest(billing_clock(), billing_latest_as_of());
    dated  plan_price_versions;
begin
    -- The transaction may have taken it back, or dated it otherwise, since.
    select * into dated from plan_price_versions where id = new.id and valid_from = new.valid_from;
    if dated.valid_to <= begins then
        -- What follows has begun meanwhile, so this one never was in force.
        delete from plan_price_versions where id = dated.id;
        update plan_price_versions set valid_to = dated.valid_to where plan_id = dated.plan_id and valid_to = dated.valid_from;
    elsif dated.valid_from < begins then
        update plan_price_versions set valid_to = begins where plan_id = dated.plan_id and valid_to = dated.valid_from;
        update plan_price_versions set valid_from = begins where id = dated.id;
    end if;
    return null;
exception when others then
    raise warning 'billing could not date the price of a plan: %', sqlerrm;
    return null;
end $$;

drop trigger if exists billing_date_price on plan_price_versions;
create constraint trigger billing_date_price after insert on plan_price_versions
    deferrable initially deferred
    for each row when (new.begins_at_commit and not new.announced and isfinite(new.valid_from))
    execute function billing_date_price();
