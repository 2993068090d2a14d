-- The functions of billing in the database. Repeatable: `migrate` runs this file again when its text has changed, and when the
-- catalog lacks one of these functions or holds another body. So a function is edited here, in place, and nowhere else.
--
-- Not here: billing_clock() (tables/001_baseline.sql; column defaults depend on it, and tests replace it in their databases),
-- billing_open_wallet() (wallet_opening.sql, which adoption includes), and the rights of roles (rights.sql).
--
-- Order: PostgreSQL checks the body of an SQL function when it is created, so a function stands below those that it calls.
--
-- The host's statement never fails because of billing. A function behind a trigger of the host's tables either cannot raise, or
-- catches what it raises and records it.

-- Retired functions: one line for each function that an earlier version made and this one does not.
drop function if exists billing_flush_segments(vps_instances, billing_pending_segment[]);

-- locks: Replaces functions: no table is locked.

-- == Amounts and identifiers ==

-- What [started_at, ended_at) costs at an hourly rate of at most eight decimals, rounded half up to eight decimals.
-- Exact: the division is one of whole numbers (hundred-millionths times microseconds), so nothing is rounded twice.
create or replace function billing_amount(hourly_rate numeric, started_at timestamptz, ended_at timestamptz) returns numeric
    language sql immutable parallel safe
as $$
    select div(hourly_rate * 100000000 * 2 * (extract(epoch from ended_at - started_at) * 1000000) + 3600000000, 7200000000)
        * 0.00000001
$$;

-- A charge identifier that belongs to one batch: sixteen hexadecimal digits of run and batch in front, a hash behind. The rows of a
-- batch stand side by side in the primary key, they are read back by a range of it, and the key grows at one end. A UUID of
-- version 8, which leaves the content to the maker.
create or replace function billing_batch_uuid(batch_key text, hash bigint) returns uuid
    language sql immutable parallel safe
as $$
    -- The highest bit set and the three below it cleared make the digit 8, and keep the leading zeros.
    select (batch_key || to_hex(hash & 1152921504606846975 | -9223372036854775808))::uuid
$$;

-- An amount as it is written in JSON: at least two decimals, no trailing zeros beyond them.
create or replace function billing_money_text(amount numeric) returns text
    language sql immutable parallel safe
as $$ select case when scale(trim_scale(amount)) < 2 then round(amount, 2) else trim_scale(amount) end::text $$;

-- An instant as it is written in JSON: UTC, whole seconds.
create or replace function billing_instant_text(at timestamptz) returns text
    language sql immutable parallel safe
as $$ select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') $$;

-- The lowest threshold (3, 24 or 72 hours) that a runway has come down to; null above 72 hours and for a wallet without an end.
create or replace function billing_runway_level(hours_left double precision) returns smallint
    language sql immutable parallel safe
as $$ select (case when hours_left <= 3 then 3 when hours_left <= 24 then 24 when hours_left <= 72 then 72 end)::smallint $$;

-- == Metering: usage segments of vps_instances ==
--
-- The watermark (last_billed_at, and our copy of it, rated_until) says how far an instance is rated. When its status, plan,
-- organization or backups change, or the row is deleted, the segment from the watermark to that moment is closed and the watermark
-- moves up to it. So a run never asks what an instance used to be: an open segment has the values of the row, a closed one its own.
--
-- Pending, then flushed. The row trigger, which moves the watermark in a row that is being written anyway, appends the closed
-- segment to vps_instances.pending_segments. A batch of a run first moves the pending segments of its range into
-- billing_usage_segments; from there they are charged, held, waived and verified. (A statement trigger that wrote the segments at
-- once made the host's UPDATE three times as expensive.) Why a pending segment is neither lost nor flushed twice:
--
--   one statement    locks the rows, inserts their segments as they are when locked, and empties the column of the same rows. What
--                    the host closes after the lock waits for our COMMIT and finds an empty column.
--   one transaction  with the charges. A batch that is rolled back leaves the pending segments in the row.
--   one writer       The column changes by the trigger, which starts from OLD, or by a batch, which says so by the setting
--                    containerstacks_billing.advancing. What the host writes there is replaced by what stood there, so a row that is
--                    written back from an older copy neither loses a segment nor brings a flushed one back.
--   one comparison   A row that billing did not write itself, as after the restore of the host's table alone, is compared with what
--                    is charged before it is flushed (charging/README.md, "No hour twice"). So is a segment that the host's
--                    statement flushed.
--
-- A pending segment belongs to the organization of its row. An instance that moves to another organization, or gets another id, has
-- its segments flushed at once, under the old one, within the host's statement; so has one with more than eight of them, which
-- bounds the column. An instance that is deleted, or whose table is truncated, has all of them flushed with its last.
--
-- A segment is judged by the policy in force at its start: under 'full' a started hour is counted to its end, and the watermark
-- moves there, so running again inside that hour is free; under 'free' the last started hour is not charged; 'prorate' charges to
-- the microsecond. A segment that is not to be charged is recorded too, settled from the start: it explains the gap to `verify`.
--
-- The row trigger runs with the host's rights and reads no table of ours. It compares and adds finite instants, casts to text, which
-- every type can be, and appends to an array. Rows whose watermark is infinite or missing it leaves alone: the run quarantines them.

-- Whether a status is billable under a policy; {*} stands for every status.
create or replace function billing_metered_status(status text, policy billing_policies) returns boolean
    language sql immutable parallel safe
as $$ select coalesce(status = any (policy.billable_statuses), false) or policy.billable_statuses = '{*}' $$;

-- Whether an instance is billable by these statuses: by the one before a transient status, where there is one. Written as two
-- comparisons, and inlined, so that the planner estimates it by the statistics of `status`.
create or replace function billing_is_billable(status text, lasting_status text, statuses text[]) returns boolean
    language sql immutable parallel safe
as $$ select status = any (statuses) and lasting_status is null or lasting_status = any (statuses) $$;

-- Whether an update writes the status before a transient one, which only metering does.
create or replace function billing_takes_lasting_status(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$ select after.lasting_status is distinct from before.lasting_status $$;

-- Until when a closed segment is charged, and what settles it at once; outcome null means that it is to be charged. One row,
-- written so that the planner can inline it: called for each row of a bulk update it took ten times as long as the update.
create or replace function billing_segment_outcome(status text, started_at timestamptz, ended_at timestamptz)
    returns table (charge_until timestamptz, outcome text)
    language sql stable parallel safe rows 1
as $$
    select until, case when billable is not true then 'not billable' when until = started_at then 'free' end
    from (
        select billing_metered_status(status, p) as billable,
            case when p.partial_hour = 'free' and billing_metered_status(status, p)
                 then started_at + floor(extract(epoch from ended_at - started_at) / 3600)::integer * interval '1 hour'
                 else ended_at end as until
        from (values (true)) one
        left join billing_policies p on p.valid_from <= started_at and started_at < p.valid_to
    ) judged
$$;

-- Record what could not be stored where `doctor` and `verify` find it. If not even that can be done, a warning is left: the host's
-- statement comes first.
create or replace function billing_metering_failed(error text, segment text) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into billing_metering_failures (error, segment) values (error, coalesce(segment, ''));
exception when others then
    raise warning 'billing could not meter a change of vps_instances: % (%)', error, sqlerrm;
end $$;

-- Where a segment that began at started_at ends if it is closed at this moment: never before its start, whatever the data and the
-- clock. Reads the policy in force at its start; no policy counts as 'prorate'.
create or replace function billing_segment_end(status text, started_at timestamptz, at timestamptz) returns timestamptz
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

-- Pending segments of an instance as rows of billing_usage_segments. Written so that the planner inlines it.
create or replace function billing_segments_of(instance vps_instances, segments billing_pending_segment[])
    returns table (organization_id uuid, instance_id uuid, label text, plan_id text, status text, backups boolean,
        started_at timestamptz, ended_at timestamptz, charge_until timestamptz, closed_at timestamptz, reason text,
        rated_from timestamptz, outcome text)
    language sql stable parallel safe rows 1
as $$
    select instance.organization_id, instance.id, instance.label::text, pending.plan_id, pending.status, pending.backups,
        pending.started_at, pending.ended_at, judged.charge_until, pending.closed_at, pending.reason, instance.rated_from,
        case when pending.reason in ('watermark', 'creation') then 'waived' else judged.outcome end
    from unnest(segments) pending, billing_segment_outcome(pending.status, pending.started_at, pending.ended_at) judged
$$;

-- How many of the pending segments closed until an instant are probably to be charged; null if none was closed by then. A function,
-- because the subquery that it is would keep the plan of a run from reading instances in parallel.
create or replace function billing_due_segments(segments billing_pending_segment[], until timestamptz, every_status boolean,
    billable_statuses text[]) returns bigint
    language sql immutable parallel safe
as $$
    select count(*) filter (where (every_status or status = any (billable_statuses)) and coalesce(reason not in ('watermark', 'creation'), true))
    from unnest(segments) where closed_at <= until having count(*) > 0
$$;

-- Every closed segment: the flushed ones, and the pending ones, which have no number. A function and not a view, which would forbid
-- the host to change the type of a column.
create or replace function billing_closed_segments()
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
    from vps_instances instance, billing_segments_of(instance, instance.pending_segments) segment
    where instance.pending_segments is not null
$$;

-- Flush the segments of a row that cannot keep them: it moves to another organization, gets another id, or has too many. Where it
-- leaves its organization or its id, until when it is rated is noted. Returns until when the id that it has now is known to be
-- rated. What could not be flushed is recorded in billing_metering_failures.
create or replace function billing_flush_leaving(instance vps_instances, segments billing_pending_segment[], until timestamptz,
    new_id uuid, is_leaving boolean) returns timestamptz
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome)
    select * from billing_segments_of(instance, segments);
    if is_leaving and isfinite(until) then
        insert into billing_charged_until as known (instance_id, organization_id, charged_until)
        values (instance.id, instance.organization_id, until)
        on conflict (instance_id, organization_id) do update
        set charged_until = greatest(known.charged_until, excluded.charged_until);
    end if;
    return (select max(charged_until) from billing_charged_until where instance_id = new_id and isfinite(charged_until));
exception when others then
    instance.pending_segments := segments;
    perform billing_metering_failed(sqlerrm, to_jsonb(instance)::text);
    return null;
end $$;

-- Take the conditions of the row triggers out of the way of the host's statement, because they name a column that is gone, renamed or
-- of another type: from here on no change of an instance is noticed, no run charges (schema/drift.py), and the failure is recorded.
-- `migrate` puts them back when the column is there again. Rolled back with the host's transaction, and then done again.
create or replace function billing_disarm_metering(error text) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    condition text;
begin
    create or replace function billing_has_backups(instance vps_instances) returns boolean
        language sql stable parallel safe as 'select false';
    foreach condition in array array['billing_ends_segment', 'billing_is_set_back', 'billing_is_paid_by_host', 'billing_is_edit',
        'billing_takes_lasting_status'] loop
        execute format('create or replace function %I(before vps_instances, after vps_instances) returns boolean'
            ' language sql stable parallel safe as %L', condition,
            case condition when 'billing_is_edit' then 'select true' else 'select false' end);
    end loop;
    perform billing_metering_failed('changes of instances are not metered any more: ' || error, '');
exception when others then
    raise warning 'billing could not step aside: % (%)', error, sqlerrm;
end $$;
revoke execute on function billing_disarm_metering(text) from public;

-- Trigger, once per UPDATE of vps_instances: whether any policy ever said 'full'. Nearly every installation bills to the microsecond,
-- where a segment simply ends now; the row trigger would otherwise ask for every row. The answer is local to the transaction.
-- Which statuses are transient, which the row trigger reads from here, too.
-- And whether the conditions of the row triggers can be computed at all.
create or replace function billing_read_policies() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    is_sound boolean;
begin
    begin
        -- Fails where the conditions of the row triggers would: a column that they name is gone, renamed, or of another type.
        -- All of them in one call, because the planner looks no further in a chain of OR once a part of it is true.
        is_sound := tg_relid <> 'public.vps_instances'::regclass
            or num_nulls(billing_ends_segment(null::vps_instances, null::vps_instances),
                billing_is_set_back(null::vps_instances, null::vps_instances),
                billing_is_paid_by_host(null::vps_instances, null::vps_instances),
                billing_is_edit(null::vps_instances, null::vps_instances),
                billing_takes_lasting_status(null::vps_instances, null::vps_instances)) >= 0;
    exception when others then
        perform billing_disarm_metering(sqlerrm);
    end;
    perform set_config('containerstacks_billing.full_hours',
            case when exists (select from billing_policies where partial_hour = 'full') then 'on' else 'off' end, true),
        set_config('containerstacks_billing.transient_statuses', coalesce(
            (select transient_statuses::text from billing_policies where valid_to = 'infinity'), '{}'), true);
    return null;
exception when others then
    perform set_config('containerstacks_billing.full_hours', 'off', true);
    perform set_config('containerstacks_billing.transient_statuses', '{}', true);
    return null;
end $$;

-- Trigger, per updated row whose segment ends: close the segment and move the watermark. Runs with the host's rights and search
-- path, because switching both for every row costs as much as the rest of it.
--
-- A session plans these expressions once, for the types that the columns had then, and fails where one has changed since. The
-- constant that names the table makes them depend on it, so they are planned anew after any change to it.
--
-- A watermark that lies ahead of its time, and that is not ours, is left alone as an infinite one is: closing the segment there
-- would make it ours.
--
-- A transient status continues the one before: the segment goes on as if nothing had changed, and `used` is the status that it is
-- judged by.
create or replace function billing_move_watermark() returns trigger
    language plpgsql
as $$
declare
    started_at timestamptz;
    closed_at  timestamptz;
    known      timestamptz;
    used       text;
    becomes    text;
begin
    used := coalesce(old.lasting_status, case when tg_relid = 'public.vps_instances'::regclass then old.status::text end);
    becomes := case when tg_relid = 'public.vps_instances'::regclass then new.status::text end;
    if (case when tg_relid = 'public.vps_instances'::regclass then old.status::text is distinct from new.status::text end) then
        new.lasting_status := case when becomes = any (
            nullif(current_setting('containerstacks_billing.transient_statuses', true), '')::text[]) then used end;
        if coalesce(new.lasting_status, becomes) = used and old.last_billed_at is not distinct from new.last_billed_at
            and (case when tg_relid = 'public.vps_instances'::regclass then
                (old.id, old.organization_id, old.plan_id, public.billing_has_backups(old))
                    is not distinct from (new.id, new.organization_id, new.plan_id, public.billing_has_backups(new)) end)
        then
            return new;
        end if;
    end if;
    started_at := greatest(coalesce(old.last_billed_at, old.created_at), old.rated_until,
        old.pending_segments[cardinality(old.pending_segments)].ended_at);
    closed_at := public.billing_clock();
    if isfinite(started_at) and (started_at <= closed_at + interval '1 hour' or started_at <= old.rated_until) then
        if current_setting('containerstacks_billing.full_hours', true) = 'off' then
            new.rated_until := greatest(started_at, closed_at);
        else
            new.rated_until := public.billing_segment_end(used, started_at, closed_at);
        end if;
        -- What was metered, even without length, is distinguished from what changed while triggers were off.
        new.sealed_by := null;
        -- A host that writes the watermark in the same statement may move it on, never back.
        new.last_billed_at := greatest(new.rated_until, nullif(new.last_billed_at, old.last_billed_at));
        if new.rated_until > started_at or old.id <> new.id then
            -- Of one element, which costs half of what appending to nothing does.
            new.pending_segments := array[row(old.plan_id::text, used,
                public.billing_has_backups(old), started_at, new.rated_until, closed_at,
                case when tg_relid <> 'public.vps_instances'::regclass then null
                     when old.id is distinct from new.id then 're-keyed'
                     when old.organization_id is distinct from new.organization_id then 'organization'
                     when old.plan_id is distinct from new.plan_id then 'plan'
                     when old.status is distinct from new.status then 'status'
                     else 'backups' end)::public.billing_pending_segment];
            if old.pending_segments is not null then
                new.pending_segments := array_cat(old.pending_segments, new.pending_segments);
            end if;
        end if;
    end if;
    if (old.organization_id, old.id) is distinct from (new.organization_id, new.id) or cardinality(new.pending_segments) > 8 then
        known := public.billing_flush_leaving(old, new.pending_segments, new.rated_until, new.id,
            (old.organization_id, old.id) is distinct from (new.organization_id, new.id));
        new.pending_segments := null;
        if old.id <> new.id then
            -- What ran under the old id is closed; the new one begins here, or where it was rated until when it left.
            new.rated_until := greatest(new.rated_until, known);
            new.last_billed_at := greatest(new.last_billed_at, new.rated_until);
            new.rated_from := new.rated_until;
        end if;
    end if;
    return new;
exception when others then
    perform public.billing_metering_failed(sqlerrm, to_jsonb(old)::text);
    return new;
end $$;

-- Trigger, per updated row that takes away what is ours, or moves the watermark behind what is rated (billing_is_set_back): a row
-- that is written back from an older copy, by a sync or an ORM, keeps what is ours, and its watermark does not go back.
-- rated_until can be corrected where a wrong clock left it in the future. Not for updates of billing itself.
create or replace function billing_keep_rated() returns trigger
    language plpgsql
as $$
begin
    if current_setting('containerstacks_billing.advancing', true) is distinct from 'on' then
        new.pending_segments := old.pending_segments;
        new.rated_from := coalesce(old.rated_from, new.rated_from);
        if new.rated_until is null or old.rated_until <= public.billing_clock() + interval '1 hour' then
            new.rated_until := old.rated_until;
        end if;
        if coalesce(new.last_billed_at, new.created_at) < new.rated_until then
            new.last_billed_at := new.rated_until;
        end if;
    end if;
    return new;
exception when others then
    perform public.billing_metering_failed(sqlerrm, to_jsonb(old)::text);
    return new;
end $$;

-- Trigger, per updated row whose status before a transient one is written by another than metering: a copy of the row that is written
-- back does not say what it was billed by.
create or replace function billing_keep_lasting_status() returns trigger
    language plpgsql
as $$
begin
    if current_setting('containerstacks_billing.advancing', true) is distinct from 'on' then
        new.lasting_status := old.lasting_status;
    end if;
    return new;
exception when others then
    perform public.billing_metering_failed(sqlerrm, to_jsonb(old)::text);
    return new;
end $$;

-- Whether the host took a fee for the first hour of an instance that it created at that time, and the policy in force says that the
-- fee pays for it. The host debits it between the insert of the row and the update that writes its watermark.
create or replace function billing_fee_covers_first_hour(organization uuid, label text, created_at timestamptz) returns boolean
    language plpgsql stable security definer set search_path = public, pg_temp
as $$
begin
    return exists (select from billing_policies where valid_to = 'infinity' and creation_fee = 'covers-first-hour')
        and exists (
            select from payment_transactions entry
            where entry.organization_id = organization and entry.amount < 0 and entry.status = 'completed'
              and entry.created_at >= billing_fee_covers_first_hour.created_at - interval '5 minutes'
              and entry.description = 'VPS Creation - ' || label || ' (Initial Hour)');
exception when others then
    return false;
end $$;

-- Trigger, per updated row whose watermark the host moves on by itself (billing_is_paid_by_host): it has been paid for that span, as
-- by the fee at creation, or waives it. The span becomes a segment that is settled, so nothing of it is charged and `verify` knows
-- why. A watermark that is no date, or lies more than an hour ahead, is not believed. Rights and search path are the host's.
--
-- The first watermark of an instance comes with the fee of the host for its first hour; where the policy says that the fee pays for
-- that hour, the watermark moves to its end.
create or replace function billing_keep_watermark() returns trigger
    language plpgsql
as $$
declare
    started_at timestamptz;
    reason     text := 'watermark';
begin
    started_at := greatest(coalesce(old.last_billed_at, old.created_at), old.rated_until,
        old.pending_segments[cardinality(old.pending_segments)].ended_at);
    if current_setting('containerstacks_billing.advancing', true) is distinct from 'on'
        and isfinite(started_at) and new.last_billed_at > started_at
        and new.last_billed_at <= public.billing_clock() + interval '1 hour'
    then
        if old.last_billed_at is null and started_at = old.created_at and new.last_billed_at < old.created_at + interval '1 hour'
            and public.billing_fee_covers_first_hour(old.organization_id, old.label::text, old.created_at)
        then
            new.last_billed_at := old.created_at + interval '1 hour';
            reason := 'creation';
        end if;
        new.pending_segments := array_append(old.pending_segments, row(old.plan_id::text, coalesce(old.lasting_status, old.status::text),
            public.billing_has_backups(old), started_at, new.last_billed_at, public.billing_clock(),
            reason)::public.billing_pending_segment);
        if cardinality(new.pending_segments) > 8 then
            perform public.billing_flush_leaving(old, new.pending_segments, new.last_billed_at, new.id, false);
            new.pending_segments := null;
        end if;
    end if;
    return new;
exception when others then
    perform public.billing_metering_failed(sqlerrm, to_jsonb(old)::text);
    return new;
end $$;

-- Trigger, per inserted row: where metering begins. A new row begins at its first date, and one that comes back where it was rated
-- until when it left. A row out of a dump, which brings what is ours along, keeps it. Nothing of the row is charged before a batch
-- has compared it with the charges, so this is not the last word; it is what pages and forecasts show until then.
--
-- A first date that is infinite, missing or more than an hour ahead is not believed: the row has no rated_from and no rated_until, it is
-- quarantined, and nothing of it is rated until its date is corrected. The hour allows for clocks that differ, and for hours paid
-- ahead under 'full'.
create or replace function billing_begin_metering() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    latest  timestamptz;
    claimed timestamptz;
    rated   timestamptz;
    lasting text;
begin
    latest := billing_clock() + interval '1 hour';
    claimed := coalesce(new.last_billed_at, new.created_at);
    begin
        select max(charged_until), (array_agg(lasting_status order by charged_until desc) filter (where lasting_status is not null))[1]
        into rated, lasting
        from billing_charged_until where instance_id = new.id;
    exception when others then
        rated := null;
    end;
    -- A row that comes back in a transient status continues the one that it left with.
    new.lasting_status := case when exists (
            select from billing_policies where valid_to = 'infinity' and new.status::text = any (transient_statuses))
        then coalesce(lasting, new.lasting_status) end;
    if not coalesce(isfinite(new.rated_until) and new.rated_until <= latest, false) then
        new.rated_from := case when isfinite(claimed) and claimed <= latest then claimed end;
        new.rated_until := new.rated_from;
        new.pending_segments := null;
    end if;
    if isfinite(rated) and coalesce(new.rated_until < rated, true) then
        new.rated_from := rated;
        new.rated_until := rated;
        new.pending_segments := (
            select array_agg(segment order by segment.started_at)
            from unnest(new.pending_segments) segment where segment.started_at >= rated);
    end if;
    if coalesce(claimed < new.rated_until, new.rated_until is not null) then
        new.last_billed_at := new.rated_until;
    end if;
    return new;
exception when others then
    perform billing_metering_failed(sqlerrm, to_jsonb(new)::text);
    return new;
end $$;

-- Trigger, per updated row without a believable first date: metering begins with the first update that finds one, the host's
-- correction or the first charge after a date that was only early.
create or replace function billing_begin_metering_late() returns trigger
    language plpgsql
as $$
declare
    begins timestamptz;
begin
    -- A biller moves the watermark on from where it stood; a host that writes a date means that one.
    begins := case when current_setting('containerstacks_billing.advancing', true) = 'on'
        then coalesce(old.last_billed_at, old.created_at) else coalesce(new.last_billed_at, new.created_at) end;
    if isfinite(begins) and begins <= public.billing_clock() + interval '1 hour' then
        new.rated_from := begins;
        new.rated_until := greatest(begins, new.rated_until);
    end if;
    return new;
exception when others then
    perform public.billing_metering_failed(sqlerrm, to_jsonb(old)::text);
    return new;
end $$;

-- What a row that leaves still owes: its pending segments, and its last one. That one is written even when it is empty: it carries
-- the instant from which the instance was metered, which `verify` needs.
create or replace function billing_last_segments(instance vps_instances, at timestamptz)
    returns table (organization_id uuid, instance_id uuid, label text, plan_id text, status text, backups boolean,
        started_at timestamptz, ended_at timestamptz, charge_until timestamptz, closed_at timestamptz, reason text,
        rated_from timestamptz, outcome text)
    language sql stable rows 1
as $$
    select segment.*
    from (
        select greatest(coalesce(instance.last_billed_at, instance.created_at), instance.rated_until,
            instance.pending_segments[cardinality(instance.pending_segments)].ended_at) as started_at
    ) begun,
        lateral (
            select case when isfinite(begun.started_at) then array_append(instance.pending_segments,
                row(instance.plan_id::text, coalesce(instance.lasting_status, instance.status::text), billing_has_backups(instance),
                    begun.started_at, billing_segment_end(coalesce(instance.lasting_status, instance.status::text), begun.started_at, at),
                    at, 'deleted')::billing_pending_segment)
                else instance.pending_segments end as segments
        ) closed,
        billing_segments_of(instance, closed.segments) segment
$$;

-- Trigger, per policy that is inserted: the policy that `migrate` wrote into an empty database makes room for that of a dump which is
-- restored into it. Billing itself inserts none that is in force since ever.
create or replace function billing_make_room_for_policy() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    delete from billing_policies where valid_from = '-infinity' and valid_to = 'infinity';
    return new;
end $$;

-- Trigger, per lease that is inserted: the row that `migrate` wrote into an empty database makes room for that of a dump which is
-- restored into it. Only before the first run: later the row is the lease, and a second one is refused by its key.
create or replace function billing_make_room_for_lease() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    delete from billing_leases
    where name = new.name and holder is null and fencing_token = 0 and not exists (select from billing_runs);
    return new;
end $$;

-- Trigger, per DELETE: an instance that is deleted pays its last minutes and its pending segments, and until when it is rated is noted.
-- Nothing here refers to the organization's row, which may be going in the same statement.
create or replace function billing_close_deleted() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    with leaving as materialized (
        select segment.*
        from old_rows instance, (select billing_clock() as at) clock, billing_last_segments(instance, at) segment
    ),
    noted as (
        insert into billing_charged_until as known (instance_id, organization_id, charged_until, lasting_status)
        select instance_id, organization_id, max(ended_at), (array_agg(status order by ended_at desc))[1] from leaving group by 1, 2
        on conflict (instance_id, organization_id) do update
        set charged_until = greatest(known.charged_until, excluded.charged_until), lasting_status = excluded.lasting_status
    )
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome)
    select * from leaving;

    insert into billing_metering_failures (error, segment)
    select 'deleted with a watermark that is not a date', to_jsonb(o)::text
    from old_rows o
    where not coalesce(isfinite(greatest(coalesce(o.last_billed_at, o.created_at), o.rated_until)), false);
    return null;
exception when others then
    perform billing_metering_failed(sqlerrm, (select jsonb_agg(to_jsonb(o)) from old_rows o)::text);
    return null;
end $$;

-- Trigger, per TRUNCATE: the same, while the rows can still be read.
create or replace function billing_close_truncated() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    with leaving as materialized (
        select segment.*
        from vps_instances instance, (select billing_clock() as at) clock, billing_last_segments(instance, at) segment
    ),
    noted as (
        insert into billing_charged_until as known (instance_id, organization_id, charged_until, lasting_status)
        select instance_id, organization_id, max(ended_at), (array_agg(status order by ended_at desc))[1] from leaving group by 1, 2
        on conflict (instance_id, organization_id) do update
        set charged_until = greatest(known.charged_until, excluded.charged_until), lasting_status = excluded.lasting_status
    )
    insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
        charge_until, closed_at, reason, rated_from, outcome)
    select * from leaving;

    insert into billing_metering_failures (error, segment)
    select 'truncated with a watermark that is not a date', to_jsonb(o)::text
    from vps_instances o
    where not coalesce(isfinite(greatest(coalesce(o.last_billed_at, o.created_at), o.rated_until)), false);
    return null;
exception when others then
    perform billing_metering_failed(sqlerrm, (select jsonb_agg(to_jsonb(o)) from vps_instances o)::text);
    return null;
end $$;

-- == Prices: the versions of vps_plans ==
--
-- The host keeps one price per plan and overwrites it; an hour is rated at the price that was in force at its start, so every
-- change becomes a version with valid_from and valid_to. The versions of a plan are contiguous: the first is in force from
-- -infinity, the last to infinity. A session that changes versions of a plan holds the lock of its row.
--
-- A price at which no hour could be charged (negative, missing, no number) never was in force: the one that repairs it takes its
-- place from where it began. Otherwise the history would keep the plan unusable for ever, whatever the host shows.

-- Whether hours can be charged at a price at all; charging leaves out every plan with a version that cannot.
create or replace function billing_usable_price(price plan_price_versions) returns boolean
    language sql immutable parallel safe
as $$
    select coalesce(price.base_price between -100000000 and 100000000, false)
        and coalesce(price.markup_price, 0) between -100000000 and 100000000
        and coalesce(price.backup_price_hourly, 0) between 0 and 100000000
        and coalesce(price.backup_upcharge_hourly, 0) between 0 and 100000000
        and price.base_price + coalesce(price.markup_price, 0) >= 0
$$;

-- The latest instant up to which hours were charged, or are being charged by the run under way. No price begins before it: after a
-- clock that was set back that instant lies ahead, and the run and the price may be committed in either order. Only the holder
-- of the lease charges, so a run that its process left open counts until the lease has another holder.
create or replace function billing_latest_as_of() returns timestamptz
    language sql stable security definer set search_path = public, pg_temp
as $$
    select max(as_of) from billing_runs
    where batches > 0
       or outcome is null and fencing_token = (select fencing_token from billing_leases where name = 'billing')
$$;

-- The instant from which a price that is set at some instant can hold. The time of prices never goes back. What was recorded for
-- later than that, and not announced, is of a time that was taken back; the host's word of now is newer, so it is removed, or
-- it would come into force a second time against that word.
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

-- Trigger, per inserted or updated plan: record its price. The host's own statement succeeds whatever happens in here: a price
-- that could not be recorded is recorded by billing_sync_prices(), which every run calls before it rates anything.
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

-- Trigger, before COMMIT, per price version that begins at its commit. A price that the host sets begins when its transaction
-- commits, and not when its statement ran: until then no hour can be charged at it, and a transaction that stays open for hours
-- would begin its price before hours that runs have charged at the one of before. The trigger is on our table: one that waits on
-- vps_plans would forbid the host to alter that table in the same transaction.
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

-- Bring vps_plans up to announced prices that have begun, and record what the trigger missed. Every run begins with it.
--
-- The search only says where to look. What is done with a plan is decided once its row is locked, by statements that see what
-- the previous holder committed. A plan that another session has locked is passed over, so no session waits and the host is never the
-- victim of a deadlock: hours are rated by the versions, whatever vps_plans shows, and the next run shows it.
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
    -- A plan that is deleted shows nothing, and its prices do not change any more.
    update plan_price_versions set announced = false
    where announced and valid_from <= at and plan_id not in (select id from vps_plans);
end $$;

-- Make the amounts of charges exact again after a migration of the host gave their column a fixed number of decimals, which rounded
-- them: an amount is its hours at its hourly rate, so it is derived anew. Where a view or a policy reads the column it stays as it
-- is, and the adoption report prints the statements. A rate that was rounded itself cannot be derived, so nothing is done then.
create or replace function billing_restore_exact_amounts() returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    if (select count(*) from pg_attribute where attrelid = 'vps_billing_cycles'::regclass
        and (attname = 'total_amount' and atttypmod <> -1 or attname = 'hourly_rate' and atttypmod = -1)) < 2 then
        return;
    end if;
    alter table vps_billing_cycles alter column total_amount type numeric;
    update vps_billing_cycles
    set total_amount = billing_amount(hourly_rate, billing_period_start, billing_period_end)
    where run_id is not null
      and total_amount <> billing_amount(hourly_rate, billing_period_start, billing_period_end);
exception when feature_not_supported or syntax_error then
    raise notice 'vps_billing_cycles.total_amount keeps its decimals for now: %', sqlerrm;
end $$;

-- The identity sequences of billing that stand behind their tables, as after a cut-over by logical replication, which copies rows and no
-- sequences: the next INSERT would take a number that is there already. With `mend` they are set to their tables.
create or replace function billing_sequences_behind(mend boolean default false) returns setof text
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    numbered record;
    highest  bigint;
begin
    for numbered in
        select c.oid::regclass as name, a.attname as column_name,
            pg_get_serial_sequence(quote_ident(c.relname), a.attname)::regclass as sequence
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
          and (c.relname like 'billing\_%' or c.relname = 'plan_price_versions')
          and a.atttypid in ('bigint'::regtype, 'integer'::regtype)
          and pg_get_serial_sequence(quote_ident(c.relname), a.attname) is not null
        order by c.relname
    loop
        execute format('select max(%I) from %s', numbered.column_name, numbered.name) into highest;
        if highest > coalesce(pg_sequence_last_value(numbered.sequence), 0) then
            if mend then
                perform setval(numbered.sequence, highest);
            end if;
            return next numbered.name::text;
        end if;
    end loop;
end $$;

-- Bring what is derived from the host's tables up to what they are now: the backup columns of the successor's schema, and prices
-- that the trigger could not record. `migrate` calls it each time; it changes nothing when nothing changed.
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
    perform billing_restore_exact_amounts();
    perform billing_admit_writers();
    perform billing_sequences_behind(mend => true);
    perform billing_sync_prices(billing_clock());
end $$;

-- == Fence: hourly debits of the host's own scheduler ==

-- Trigger, per ledger entry that the host's scheduler describes as an hourly debit, on databases whose operator asked for the fence
-- (migrate --fence-host-billing; its argument is FAILOVER_AFTER_MINUTES). It refuses the entry while a biller of ours is alive. It
-- raises, and never drops the row: the host has moved the balance in the same transaction, which is rolled back as a whole. With
-- no sign of life for that time the fence is open, and where signs of life cannot be read it is open too.
create or replace function billing_refuse_host_debit() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    silence  constant interval := make_interval(mins => tg_argv[0]::integer);
    is_alive boolean;
begin
    begin
        is_alive := exists (select from billing_daemon_status
                            where status <> 'stopped'
                              and heartbeat_at between billing_clock() - silence and billing_clock() + interval '1 hour')
            or exists (select from billing_runs where finished_at is null and started_at > billing_clock() - silence)
            or exists (select from billing_runs where trigger = 'built-in' and finished_at > billing_clock() - silence);
    exception when others then
        is_alive := false;
    end;
    if is_alive then
        raise exception 'hours of instances are billed by containerstacks-billing, so this hourly debit is refused'
            using hint = 'Switch the hourly billing of the application off. To open the fence: '
                'containerstacks-billing migrate --unfence-host-billing';
    end if;
    return new;
end $$;

-- == Charging and events ==

-- Lock a range of organizations, before any wallet. A ledger entry refers to its organization, so writing one takes a lock on the row
-- of the organization; taken after those of the wallets it deadlocked with a host that locks an organization before its wallet. It
-- is the weakest lock there is and lets the host change everything but the key. The role that bills may not write
-- organizations, and so may not lock them by itself.
create or replace function billing_lock_organizations(first uuid, last uuid) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    perform from organizations where id between first and last order by id for key share;
end $$;

-- Trigger, per INSERT into billing_events: notify listeners. Equal notifications of one transaction are folded into one by
-- PostgreSQL, so the payload stays empty. A transaction that notifies takes its turn with others that do while it commits; hence
-- none without an event.
create or replace function billing_notify_events() returns trigger
    language plpgsql
as $$
begin
    if exists (select from new_events) then
        notify billing_events;
    end if;
    return null;
end $$;

-- Those of the functions that the host's statements call are executable by every role that may write an instance, whatever the default
-- privileges of the database are.
do $$ begin perform billing_admit_writers(); end $$;
