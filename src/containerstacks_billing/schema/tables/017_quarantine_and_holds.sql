-- What a run could not charge, and what people decided about it. Findings about data are rows, not errors: a run sets
-- them aside, says why, bills everybody else, and looks again next time.

-- One row per instance that the last run left out. A run replaces the rows of the organizations it went through, so an
-- instance leaves as soon as it has been repaired.
create table if not exists billing_quarantine (
    organization_id uuid        not null,
    instance_id     uuid        not null,
    segment_id      bigint      not null default 0,
    label           text,
    reason          text        not null,
    detail          text        not null,
    due_hours       numeric,
    first_seen_at   timestamptz not null,
    last_seen_at    timestamptz not null,
    run_id          bigint      not null,
    primary key (organization_id, instance_id, segment_id)
);
comment on table billing_quarantine is 'Instances set aside, and held ones (reason ''held''); segment_id 0 is the open stretch';

-- Who decided what about hours that were held. 'charge' lets hours before charge_until pass the catch-up bound; waived
-- hours are explained to verify by waived_from and waived_to. Rows are never removed.
create table if not exists billing_decisions (
    id              bigint generated always as identity primary key,
    organization_id uuid        not null,
    instance_id     uuid        not null,
    segment_id      bigint      not null default 0,
    decision        text        not null
        constraint billing_decisions_known_decision check (decision in ('charge', 'cap', 'waive')),
    charge_until    timestamptz,
    waived_from     timestamptz,
    waived_to       timestamptz,
    decided_at      timestamptz not null default clock_timestamp(),
    decided_by      text        not null,
    reason          text        not null
);
create index if not exists billing_decisions_instance on billing_decisions (organization_id, instance_id, charge_until);

-- Bring what we derive from the host's tables up to what they are now: the backup columns of the successor's schema,
-- and prices that the trigger could not record. `migrate` calls it each time; it changes nothing when nothing changed.
create or replace function billing_adapt_to_host() returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    body text := case when exists (select from pg_attribute where attrelid = 'vps_instances'::regclass
                                   and attname = 'backup_frequency' and not attisdropped)
        then 'select coalesce(instance.backup_frequency::text, ''none'') <> ''none'''
        else 'select false' end;
begin
    if body is distinct from (select prosrc from pg_proc where oid = 'billing_has_backups(vps_instances)'::regprocedure) then
        execute format('create or replace function billing_has_backups(instance vps_instances) returns boolean'
            ' language sql stable parallel safe as %L', body);
    end if;
    perform billing_sync_prices(billing_clock());
end $$;

-- Let announced prices take effect in vps_plans, and record what the trigger missed. Every run begins with it.
create or replace function billing_sync_prices(at timestamptz) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    -- vps_plans shows the price of this moment, which may be later than the instant that a run bills. A price that began in
    -- between has a version of its own already, and must not be taken for one that was missed.
    at := greatest(at, billing_clock());
    update vps_plans p set base_price = v.base_price, markup_price = v.markup_price
    from plan_price_versions v
    where v.plan_id = p.id and v.announced and v.valid_from <= at and at < v.valid_to
      and (p.base_price::numeric, p.markup_price::numeric) is distinct from (v.base_price, v.markup_price);
    update plan_price_versions set announced = false where announced and valid_from <= at;
    perform billing_record_price(p, at) from vps_plans p
    where not exists (
        select from plan_price_versions v
        where v.plan_id = p.id and v.valid_from <= at and at < v.valid_to
          and (v.base_price, v.markup_price, v.backup_price_hourly, v.backup_upcharge_hourly) is not distinct from
              (p.base_price::numeric, p.markup_price::numeric, (to_jsonb(p) ->> 'backup_price_hourly')::numeric,
               (to_jsonb(p) ->> 'backup_upcharge_hourly')::numeric));
end $$;
