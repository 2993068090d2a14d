-- Metering, the second form: a stretch that a change closes is kept in the row that changed, and filed by the next run.
--
-- This replaces the two update triggers of 016, and with them what 025 says about the plan of the second. 016 wrote the segments
-- of a host's UPDATE in a statement trigger, at once. That was set-based, and still three times as dear as the UPDATE itself:
-- PostgreSQL keeps every row of before and of after for such a trigger, joins them again, and writes 100,000 rows with three
-- indexes, all while the host waits; and it keeps those rows for every update of watermarks too, whose trigger does nothing.
-- The row, on the other hand, is being written anyway. So the row trigger, which moves the watermark in it, now also appends
-- the closed stretch to it, in vps_instances.closed_stretches, and the statement trigger is gone.
--
-- Kept, then filed. A batch of a run that is not ordinary first moves the kept stretches of its range into
-- billing_usage_segments (`file_stretches` in queries/charging.sql), and from there on nothing has changed: segments are
-- charged, held, waived and compared as before. Why a kept stretch is neither lost nor filed twice:
--
--   one statement   locks the rows, inserts segments from them as they are when locked, and empties the column of the same
--                   rows. What the host closes after the lock waits for our COMMIT and finds an empty column; what it closed
--                   before is in the row that was locked.
--   one transaction with the charges. A batch that is rolled back, or whose process dies, leaves the stretches in the row.
--   one writer      The column changes by this trigger, which starts from OLD, or by a biller, which says so
--                   (containerstacks_billing.advancing). What the host writes there is replaced by what stood there, so a
--                   row that is written back from an older copy neither loses a stretch nor brings a filed one back.
--   one key         Were a stretch filed twice all the same, as after the restore of the host's table alone, the unique key
--                   over the charges refuses the second copy, as it does for segments.
--
-- A kept stretch always belongs to the organization that the row belongs to: an instance that moves to another has its
-- stretches filed at once, under the old one, within the host's statement. So does one that changes more than eight times
-- between two runs, which bounds the column. Both are rare, call a function per row, and only they have a subtransaction. An
-- instance that is deleted has all of them filed with its last.
--
-- A stretch is judged when it is filed, by the policy in force at its start, which no later change of policy touches.
--
-- The host's statement must not fail for us. The row trigger runs with the host's rights and reads no table of ours. It calls
-- billing_clock() and, where some policy ever said 'full', billing_stretch_end(); compares and adds instants that are
-- finite; casts to text, which every type can be; and appends to an array that only it writes. What it does with tables is in
-- billing_spill_stretches(), which catches what they raise. The column is no part of an index, or the host's update and
-- every watermark update would have to write all indexes of the table.

do $$
begin
    if to_regtype('public.billing_stretch') is null then
        create type billing_stretch as (
            plan_id    text,
            status     text,
            backups    boolean,
            started_at timestamptz,
            ended_at   timestamptz,
            closed_at  timestamptz,
            reason     text
        );
    end if;
end $$;

alter table vps_instances add column if not exists closed_stretches billing_stretch[];
comment on column vps_instances.closed_stretches is
    'stretches that a change has closed since the last run, oldest first, until a run files them in billing_usage_segments';

alter function billing_judge_segment(text, timestamptz, timestamptz) parallel safe;

-- Stretches of an instance as rows of billing_usage_segments. Written so that the planner inlines it.
create or replace function billing_segments_of(instance vps_instances, stretches billing_stretch[])
    returns table (organization_id uuid, instance_id uuid, label text, plan_id text, status text, backups boolean,
        started_at timestamptz, ended_at timestamptz, charge_until timestamptz, closed_at timestamptz, reason text,
        rated_from timestamptz, outcome text)
    language sql stable parallel safe rows 1
as $$
    select instance.organization_id, instance.id, instance.label::text, stretch.plan_id, stretch.status, stretch.backups,
        stretch.started_at, stretch.ended_at, judged.charge_until, stretch.closed_at, stretch.reason, instance.rated_from,
        judged.outcome
    from unnest(stretches) stretch, billing_judge_segment(stretch.status, stretch.started_at, stretch.ended_at) judged
$$;

-- How many of the stretches closed until an instant are probably to be charged; null if none was closed by then. A function,
-- because the subquery that it is would keep the plan of a run from reading instances in parallel.
create or replace function billing_due_stretches(stretches billing_stretch[], until timestamptz, every_status boolean,
    billable_statuses text[]) returns bigint
    language sql immutable parallel safe
as $$
    select count(*) filter (where every_status or status = any (billable_statuses))
    from unnest(stretches) where closed_at <= until having count(*) > 0
$$;

-- Every closed stretch there is: the filed ones, and those that are still kept, which have no number. A function and not a
-- view, which would forbid the host to change the type of a column.
create or replace function billing_closed_stretches()
    returns table (id bigint, organization_id uuid, instance_id uuid, label text, plan_id text, status text, backups boolean,
        started_at timestamptz, ended_at timestamptz, charge_until timestamptz, closed_at timestamptz, reason text,
        rated_from timestamptz, outcome text, run_id bigint)
    language sql stable parallel safe rows 1000
as $$
    select id, organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at, charge_until, closed_at,
        reason, rated_from, outcome, run_id
    from billing_usage_segments
    union all
    select null, segment.organization_id, segment.instance_id, segment.label, segment.plan_id, segment.status, segment.backups,
        segment.started_at, segment.ended_at, segment.charge_until, segment.closed_at, segment.reason, segment.rated_from,
        segment.outcome, null
    from vps_instances instance, billing_segments_of(instance, instance.closed_stretches) segment
    where instance.closed_stretches is not null
$$;

-- As in 016, found whatever the search path of the host's session is.
create or replace function billing_ends_stretch(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select (before.organization_id, before.plan_id, before.status, public.billing_has_backups(before))
        is distinct from (after.organization_id, after.plan_id, after.status, public.billing_has_backups(after))
$$;

-- Only what moves rated_until or files stretches, and changes nothing else that a person would call an edit, is ours.
create or replace function billing_is_edit(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select after.rated_until is not distinct from before.rated_until
            and (after.closed_stretches is not distinct from before.closed_stretches
                 or current_setting('containerstacks_billing.advancing', true) is distinct from 'on')
        or public.billing_ends_stretch(before, after)
        or after.label is distinct from before.label
$$;

-- File the stretches of a row that cannot keep them: it moves to another organization, or has too many. Returns what the row
-- is to keep, which is nothing: what could not be filed is kept in billing_metering_failures.
create or replace function billing_spill_stretches(instance vps_instances, stretches billing_stretch[]) returns billing_stretch[]
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome)
    select * from billing_segments_of(instance, stretches);
    return null;
exception when others then
    instance.closed_stretches := stretches;
    perform billing_metering_failed(sqlerrm, to_jsonb(instance)::text);
    return null;
end $$;

-- Runs with the host's rights and search path, because switching both for every row costs as much as the rest of it.
--
-- A session plans these expressions once, for the types that the columns had then, and fails where one has changed since. The
-- constant that names the table tells PostgreSQL that they depend on it, so they are planned anew after any change to it.
create or replace function billing_move_watermark() returns trigger
    language plpgsql
as $$
declare
    started_at timestamptz := greatest(coalesce(old.last_billed_at, old.created_at), old.rated_until);
    closed_at  timestamptz;
begin
    if isfinite(started_at) then
        closed_at := public.billing_clock();
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

create or replace function billing_keep_stretches() returns trigger
    language plpgsql
as $$
begin
    if current_setting('containerstacks_billing.advancing', true) is distinct from 'on' then
        new.closed_stretches := old.closed_stretches;
    end if;
    return new;
end $$;

create or replace function billing_begin_metering() returns trigger
    language plpgsql
as $$
begin
    new.rated_from := coalesce(new.last_billed_at, new.created_at);
    new.rated_until := new.rated_from;
    new.closed_stretches := null;
    return new;
end $$;

-- An instance that is deleted pays its last minutes, and what it has kept. The segment of its last stretch is written even when
-- it is empty: it carries the instant from which the instance was metered, which `verify` needs. Nothing here refers to the
-- organization's row, which may be going in the same statement.
create or replace function billing_close_deleted() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome)
    select segment.*
    from old_rows o,
        lateral (select greatest(coalesce(o.last_billed_at, o.created_at), o.rated_until) as started_at) begun,
        lateral (
            select case when isfinite(started_at) then array_append(o.closed_stretches,
                row(o.plan_id::text, o.status::text, billing_has_backups(o), started_at,
                    billing_stretch_end(o.status, started_at, billing_clock()), billing_clock(), 'deleted')::billing_stretch)
                else o.closed_stretches end as stretches
        ) closed,
        billing_segments_of(o, closed.stretches) segment;

    insert into billing_metering_failures (error, segment)
    select 'deleted with a watermark that is not a date', to_jsonb(o)::text
    from old_rows o
    where not coalesce(isfinite(greatest(coalesce(o.last_billed_at, o.created_at), o.rated_until)), false);
    return null;
exception when others then
    perform billing_metering_failed(sqlerrm, (select jsonb_agg(to_jsonb(o)) from old_rows o)::text);
    return null;
end $$;

drop trigger if exists billing_close_segments on vps_instances;
drop function if exists billing_close_segments();

-- Its name sorts before billing_move_watermark, which appends to what stands there.
drop trigger if exists billing_keep_stretches on vps_instances;
create trigger billing_keep_stretches before update on vps_instances
    for each row when (new.closed_stretches is distinct from old.closed_stretches)
    execute function billing_keep_stretches();
