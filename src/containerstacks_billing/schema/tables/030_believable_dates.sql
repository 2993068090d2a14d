-- Where metering begins, if the first date of an instance cannot be believed.
--
-- rated_until says how far an instance is rated, and stands firm against whoever moves the watermark back. Until now it took the first
-- date of a row as it came, and one that was infinite, or a year ahead by a slip, stood just as firm: whoever corrected
-- created_at was told that the watermark had been moved back behind a charge that never was, and nothing could repair it.
--
-- So a row has no rated_from and no rated_until as long as its date is more than an hour ahead or no date at all. It is set aside,
-- and nothing of it is rated. Metering begins with the first update that finds a date to believe: the host's correction, or the
-- first charge after a date that was only early. The hour allows for clocks that differ, and for hours paid ahead under 'full'.

create or replace function billing_begin_metering() returns trigger
    language plpgsql
as $$
begin
    new.rated_from := coalesce(new.last_billed_at, new.created_at);
    if not coalesce(isfinite(new.rated_from) and new.rated_from <= public.billing_clock() + interval '1 hour', false) then
        new.rated_from := null;
    end if;
    new.rated_until := new.rated_from;
    new.closed_stretches := null;
    return new;
end $$;

create or replace function billing_begin_metering_late() returns trigger
    language plpgsql
as $$
declare
    -- A biller moves the watermark on from where it stood; a host that writes a date means that one.
    begins timestamptz := case when current_setting('containerstacks_billing.advancing', true) = 'on'
        then coalesce(old.last_billed_at, old.created_at) else coalesce(new.last_billed_at, new.created_at) end;
begin
    if isfinite(begins) and begins <= public.billing_clock() + interval '1 hour' then
        new.rated_from := begins;
        new.rated_until := greatest(begins, new.rated_until);
    end if;
    return new;
end $$;

-- Its name sorts before the others, which go by rated_until.
drop trigger if exists billing_begin_metering_late on vps_instances;
create trigger billing_begin_metering_late before update on vps_instances
    for each row when (old.rated_from is null and old.rated_until is null and new.rated_from is null)
    execute function billing_begin_metering_late();

-- As in 027, but a watermark that lies ahead of its time, and that is not ours, is left alone as an infinite one is: closing the
-- stretch there would make it ours.
create or replace function billing_move_watermark() returns trigger
    language plpgsql
as $$
declare
    started_at timestamptz := greatest(coalesce(old.last_billed_at, old.created_at), old.rated_until);
    closed_at  timestamptz;
begin
    closed_at := public.billing_clock();
    if isfinite(started_at) and (started_at <= closed_at + interval '1 hour' or started_at <= old.rated_until) then
        if current_setting('containerstacks_billing.full_hours', true) = 'off' then
            new.rated_until := greatest(started_at, closed_at);
        else
            new.rated_until := public.billing_stretch_end(
                case when tg_relid = 'public.vps_instances'::regclass then old.status::text end, started_at, closed_at);
        end if;
        -- A host that writes the watermark in the same statement may move it on, never back.
        new.last_billed_at := greatest(new.rated_until, nullif(new.last_billed_at, old.last_billed_at));
        if new.rated_until > started_at then
            -- Of one element, which costs half of what appending to nothing does.
            new.closed_stretches := array[row(old.plan_id::text, old.status::text,
                public.billing_has_backups(old), started_at, new.rated_until, closed_at,
                case when tg_relid <> 'public.vps_instances'::regclass then null
                     when old.organization_id is distinct from new.organization_id then 'organization'
                     when old.plan_id is distinct from new.plan_id then 'plan'
                     when old.status is distinct from new.status then 'status'
                     else 'backups' end)::public.billing_stretch];
            if old.closed_stretches is not null then
                new.closed_stretches := array_cat(old.closed_stretches, new.closed_stretches);
            end if;
        end if;
    end if;
    if old.organization_id is distinct from new.organization_id or cardinality(new.closed_stretches) > 8 then
        new.closed_stretches := public.billing_spill_stretches(old, new.closed_stretches);
    end if;
    return new;
end $$;

-- As in 021; only a statement of ours may take rated_until away, as the one below does.
create or replace function billing_keep_rated_until() returns trigger
    language plpgsql
as $$
begin
    if current_setting('containerstacks_billing.advancing', true) is distinct from 'on' then
        new.rated_until := old.rated_until;
    end if;
    return new;
end $$;

-- What was taken as it came, and of which nothing was ever charged or decided, is not rated.
do $$
begin
    perform set_config('containerstacks_billing.advancing', 'on', true);
    update vps_instances instance
    set rated_from = null, rated_until = null
    where (rated_until > billing_clock() + interval '1 hour' or not isfinite(rated_until))
      and not exists (
        select from vps_billing_cycles charge
        where charge.organization_id = instance.organization_id and charge.vps_instance_id = instance.id
          and charge.run_id is not null)
      and not exists (
        select from billing_usage_segments segment
        where segment.organization_id = instance.organization_id and segment.instance_id = instance.id)
      and not exists (
        select from billing_decisions decision
        where decision.organization_id = instance.organization_id and decision.instance_id = instance.id);
    perform set_config('containerstacks_billing.advancing', 'off', true);
end $$;
