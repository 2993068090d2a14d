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
