-- Metering: a stretch in which an instance ran unchanged is closed as a usage segment at the moment it changes.
--
-- The watermark (last_billed_at, and our copy of it, rated_until) says how far an instance is rated. Whenever its
-- status, plan, organization or backups change, or the row is deleted, the stretch from the watermark to this moment becomes
-- a row of billing_usage_segments and the watermark moves up to it. So a run never has to ask what an instance used to
-- be: an open stretch has the values of the row, a closed one those of its segment.
--
-- Two triggers share the work. The row trigger moves the watermark in the row that is being written anyway; it only
-- compares and adds. The statement trigger writes the segments of the whole statement in one INSERT, so a bulk update
-- stays set-based. Both leave a row alone whose watermark is infinite or missing: the engine quarantines it by itself.
--
-- A segment is judged by the policy in force at its start, once, here: under 'full' a started hour is counted to its end
-- and the watermark moves there, at most an hour ahead, so running again inside that hour is free; under 'free' the
-- last started hour is not charged; 'prorate' charges to the microsecond. A segment that is not to be charged at all is
-- kept too, settled from the start: it explains the gap to `verify`.
--
-- The host's statement must not fail for us. The row trigger cannot raise; the statement trigger catches what its
-- INSERT raises and keeps the rows, as JSON, in billing_metering_failures, for `doctor` and `verify` to find.

create table if not exists billing_usage_segments (
    id              bigint generated always as identity primary key,
    organization_id uuid        not null,
    instance_id     uuid        not null,
    label           text,
    plan_id         text,
    status          text,
    backups         boolean     not null default false,
    started_at      timestamptz not null,
    ended_at        timestamptz not null,
    charge_until    timestamptz not null,
    closed_at       timestamptz not null,
    reason          text        not null
        constraint billing_usage_segments_known_reason
        check (reason in ('status', 'plan', 'organization', 'backups', 'deleted', 'policy')),
    rated_from      timestamptz,
    outcome         text
        constraint billing_usage_segments_known_outcome
        check (outcome in ('charged', 'not billable', 'free', 'waived', 'damaged')),
    run_id          bigint,
    constraint billing_usage_segments_forward check (started_at <= charge_until and started_at <= ended_at)
);
create index if not exists billing_usage_segments_due on billing_usage_segments (organization_id) where outcome is null;
create index if not exists billing_usage_segments_instance on billing_usage_segments (organization_id, instance_id, started_at);
comment on column billing_usage_segments.outcome is 'null: still to be charged';
comment on column billing_usage_segments.charge_until is
    'the end of what is to be charged: before ended_at under PARTIAL_HOUR=free, otherwise equal to it';

create table if not exists billing_metering_failures (
    id          bigint generated always as identity primary key,
    failed_at   timestamptz not null default clock_timestamp(),
    error       text        not null,
    segment     text        not null
);

-- Whether an instance has backups. The column belongs to the successor's schema; billing_adapt_to_host() (017)
-- gives the function its other body where the column exists. It is inlined, so it costs nothing either way.
create or replace function billing_has_backups(instance vps_instances) returns boolean
    language sql stable parallel safe
as 'select false';

-- Whether a change of the row ends its stretch. Like billing_is_edit (013) a function over whole rows: a trigger whose WHEN
-- names a column would forbid the host to change that column's type.
create or replace function billing_ends_stretch(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select (before.organization_id, before.plan_id, before.status, billing_has_backups(before))
        is distinct from (after.organization_id, after.plan_id, after.status, billing_has_backups(after))
$$;

create or replace function billing_is_edit(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select after.rated_until is not distinct from before.rated_until or billing_ends_stretch(before, after)
        or after.label is distinct from before.label
$$;

create or replace function billing_metered_status(status text, policy billing_policies) returns boolean
    language sql immutable parallel safe
as $$ select coalesce(status = any (policy.billable_statuses), false) or policy.billable_statuses = '{*}' $$;

-- Until when a closed stretch is charged, and what settles it at once; outcome null means that it is to be charged. One row,
-- written so that the planner can inline it: called for each row of a bulk update it took ten times as long as the update.
create or replace function billing_judge_segment(status text, started_at timestamptz, ended_at timestamptz)
    returns table (charge_until timestamptz, outcome text)
    language sql stable rows 1
as $$
    select until, case when billable is not true then 'not billable' when until = started_at then 'free' end
    from (
        select billing_metered_status(status, p) as billable,
            case when p.partial_hour = 'free' and billing_metered_status(status, p)
                 then started_at + floor(extract(epoch from ended_at - started_at) / 3600)::integer * interval '1 hour'
                 else ended_at end as until
        from (values (true)) stretch
        left join billing_policies p on p.valid_from <= started_at and started_at < p.valid_to
    ) judged
$$;

-- Keep what could not be stored where `doctor` and `verify` find it. If not even that can be done there is only a
-- warning left: the host's statement comes first.
create or replace function billing_metering_failed(error text, segment text) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into billing_metering_failures (error, segment) values (error, coalesce(segment, ''));
exception when others then
    raise warning 'billing could not meter a change of vps_instances: % (%)', error, sqlerrm;
end $$;

-- Where a stretch that began at started_at ends if it is closed at this moment: never before its start, whatever the
-- data and the clock. Reads the policy in force at its start; no policy at all counts as 'prorate'.
create or replace function billing_stretch_end(status text, started_at timestamptz, at timestamptz) returns timestamptz
    language sql stable security definer set search_path = public, pg_temp
as $$
    select case
        when at <= started_at then started_at
        when exists (select from billing_policies p
                     where p.valid_from <= started_at and started_at < p.valid_to and p.partial_hour = 'full'
                       and billing_metered_status(status, p))
            then started_at + ceil(extract(epoch from at - started_at) / 3600)::integer * interval '1 hour'
        else at
    end
$$;

-- Nearly every installation bills to the microsecond, where a stretch simply ends now. Whether any policy ever said 'full' is
-- looked up once per statement and told to the row trigger, which otherwise asks for every row. The answer is local to
-- the transaction; without one, the row trigger asks.
create or replace function billing_read_policies() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    perform set_config('containerstacks_billing.full_hours',
        case when exists (select from billing_policies where partial_hour = 'full') then 'on' else 'off' end, true);
    return null;
exception when others then
    perform set_config('containerstacks_billing.full_hours', 'off', true);
    return null;
end $$;

-- Runs with the host's rights and search path, because switching both for every row costs as much as the rest of it.
create or replace function billing_move_watermark() returns trigger
    language plpgsql
as $$
declare
    started_at timestamptz := greatest(coalesce(old.last_billed_at, old.created_at), old.rated_until);
begin
    if isfinite(started_at) then
        if current_setting('containerstacks_billing.full_hours', true) = 'off' then
            new.rated_until := greatest(started_at, public.billing_clock());
        else
            new.rated_until := public.billing_stretch_end(old.status, started_at, public.billing_clock());
        end if;
        -- A host that writes the watermark in the same statement may move it on, never back.
        new.last_billed_at := greatest(new.rated_until, nullif(new.last_billed_at, old.last_billed_at));
    end if;
    return new;
end $$;

create or replace function billing_begin_metering() returns trigger
    language plpgsql
as $$
begin
    new.rated_from := coalesce(new.last_billed_at, new.created_at);
    new.rated_until := new.rated_from;
    return new;
end $$;

create or replace function billing_close_segments() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    -- The engine's own update of watermarks changes nothing that is metered; it says so to spare the comparison.
    if current_setting('containerstacks_billing.advancing', true) = 'on' then
        return null;
    end if;
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome)
    with closed as (
        select o.organization_id, o.id, o.label, o.plan_id, o.status, billing_has_backups(o) as backups, o.rated_from,
            greatest(coalesce(o.last_billed_at, o.created_at), o.rated_until) as started_at,
            n.rated_until as ended_at,
            case when o.organization_id is distinct from n.organization_id then 'organization'
                 when o.plan_id is distinct from n.plan_id then 'plan'
                 when o.status is distinct from n.status then 'status'
                 else 'backups' end as reason
        from old_rows o join new_rows n on n.id = o.id
        where billing_ends_stretch(o, n)
    )
    select c.organization_id, c.id, c.label, c.plan_id, c.status, c.backups, c.started_at, c.ended_at, j.charge_until,
        billing_clock(), c.reason, c.rated_from, j.outcome
    from closed c, billing_judge_segment(c.status, c.started_at, c.ended_at) j
    where isfinite(c.started_at) and c.ended_at > c.started_at;
    return null;
exception when others then
    perform billing_metering_failed(sqlerrm, (select jsonb_agg(to_jsonb(o)) from old_rows o)::text);
    return null;
end $$;

-- An instance that is deleted pays its last minutes. Its segment is kept even when it is empty: it carries the instant from
-- which the instance was metered, which `verify` needs. Nothing here refers to the organization's row, which may be
-- going in the same statement.
create or replace function billing_close_deleted() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome)
    with deleted as (
        select o.*, billing_has_backups(o) as backups,
            greatest(coalesce(o.last_billed_at, o.created_at), o.rated_until) as started_at
        from old_rows o
    ), closed as (
        select d.*, billing_stretch_end(d.status, d.started_at, billing_clock()) as ended_at
        from deleted d where isfinite(d.started_at)
    )
    select c.organization_id, c.id, c.label, c.plan_id, c.status, c.backups, c.started_at, c.ended_at, j.charge_until,
        billing_clock(), 'deleted', c.rated_from, j.outcome
    from closed c, billing_judge_segment(c.status, c.started_at, c.ended_at) j;

    insert into billing_metering_failures (error, segment)
    select 'deleted with a watermark that is not a date', to_jsonb(o)::text
    from old_rows o
    where not coalesce(isfinite(greatest(coalesce(o.last_billed_at, o.created_at), o.rated_until)), false);
    return null;
exception when others then
    perform billing_metering_failed(sqlerrm, (select jsonb_agg(to_jsonb(o)) from old_rows o)::text);
    return null;
end $$;

drop trigger if exists billing_begin_metering on vps_instances;
create trigger billing_begin_metering before insert on vps_instances
    for each row execute function billing_begin_metering();

drop trigger if exists billing_read_policies on vps_instances;
create trigger billing_read_policies before update on vps_instances
    for each statement execute function billing_read_policies();

drop trigger if exists billing_move_watermark on vps_instances;
create trigger billing_move_watermark before update on vps_instances
    for each row
    when (billing_ends_stretch(old, new))
    execute function billing_move_watermark();

drop trigger if exists billing_close_segments on vps_instances;
create trigger billing_close_segments after update on vps_instances
    referencing old table as old_rows new table as new_rows
    for each statement execute function billing_close_segments();

drop trigger if exists billing_close_deleted on vps_instances;
create trigger billing_close_deleted after delete on vps_instances
    referencing old table as old_rows
    for each statement execute function billing_close_deleted();
