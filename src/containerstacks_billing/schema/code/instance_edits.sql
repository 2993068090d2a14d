-- What counts as a change of an instance, and for the host's updated_at as an edit. In a file of its own because adoption includes
-- it (tables/001_baseline.sql), before it moves watermarks.

-- locks: {vps_instances}: the host's updated_at trigger gets a condition, where it has none; locked against writers for milliseconds.

-- Whether an instance has backups. The column belongs to the successor's schema; where it exists, billing_adapt_to_host() gives this
-- function its other body, which stays when this file is run again. It is inlined, so it costs nothing either way.
do $$
begin
    if to_regprocedure('billing_has_backups(vps_instances)') is null then
        create function billing_has_backups(instance vps_instances) returns boolean
            language sql stable parallel safe as 'select false';
    end if;
end
$$;

-- Whether a change of the row ends its segment. A function over whole rows, because a trigger whose WHEN names a column would forbid
-- the host to change the type of that column. Found whatever the search path of the host's session is.
create or replace function billing_ends_segment(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select (before.organization_id, before.plan_id, before.status, before.id, public.billing_has_backups(before))
        is distinct from (after.organization_id, after.plan_id, after.status, after.id, public.billing_has_backups(after))
$$;

-- Whether an update takes away what is ours, or moves the watermark behind what is rated.
create or replace function billing_is_set_back(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select after.rated_until < before.rated_until
        or coalesce(after.last_billed_at, after.created_at) < after.rated_until
        or after.rated_until is null and before.rated_until is not null
        or after.rated_from is distinct from before.rated_from
        or after.pending_segments is distinct from before.pending_segments
$$;

-- Whether an update moves the watermark on and is none of billing, whose own move rated_until too.
create or replace function billing_is_paid_by_host(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select after.rated_until is not distinct from before.rated_until
        and after.last_billed_at > coalesce(before.last_billed_at, before.created_at)
        and not public.billing_ends_segment(before, after)
$$;

-- Whether an update is an edit that the host's updated_at should show. Only what moves rated_until or flushes segments, and changes
-- nothing else that a person would call an edit, is ours.
create or replace function billing_is_edit(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select after.rated_until is not distinct from before.rated_until
            and (after.pending_segments is not distinct from before.pending_segments
                 or current_setting('containerstacks_billing.advancing', true) is distinct from 'on')
        or public.billing_ends_segment(before, after)
        or after.label is distinct from before.label
$$;

-- The host stamps updated_at in a row trigger. Called once per instance and hour it costs 0.8 s of a run of 7.4 s, and
-- makes every instance look edited every hour. The same trigger with a WHEN keeps its whole effect for the host: it is
-- passed over only by an update that moves rated_until or flushes segments, which the host never does.
do $$
declare
    stamp record;
begin
    for stamp in
        select t.tgname, t.tgfoid::regproc as function_name
          from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = 'vps_instances'::regclass and not t.tgisinternal
           and p.proname = 'update_updated_at_column'
           and t.tgtype = 19                        -- BEFORE UPDATE FOR EACH ROW
           and t.tgqual is null and t.tgattr = '' and t.tgnargs = 0 and t.tgenabled = 'O'
    loop
        execute format(
            'create or replace trigger %I before update on vps_instances for each row
             when (billing_is_edit(old, new)) execute function %s()', stamp.tgname, stamp.function_name);
    end loop;
end
$$;

-- Functions that run with the rights of the role that writes an instance, and roles that may write one and not call them: after
-- `revoke execute on all functions … from public`, every statement of such a role on vps_instances would fail.
create or replace function billing_denied_functions() returns table (role name, function text)
    language sql stable set search_path = public, pg_temp
as $$
    select r.rolname, p.oid::regprocedure::text
    from pg_roles r, pg_proc p
    where p.pronamespace = 'public'::regnamespace
      and p.proname in ('billing_clock', 'billing_ends_segment', 'billing_is_set_back', 'billing_is_paid_by_host', 'billing_is_edit',
                        'billing_takes_lasting_status', 'billing_fee_covers_first_hour', 'billing_has_backups', 'billing_segment_end', 'billing_flush_leaving', 'billing_metering_failed')
      and (has_table_privilege(r.oid, 'vps_instances', 'INSERT, UPDATE, DELETE, TRUNCATE')
           or has_any_column_privilege(r.oid, 'vps_instances', 'INSERT, UPDATE'))
      and not has_function_privilege(r.oid, p.oid, 'EXECUTE') and r.rolname not like 'pg\_%'
    order by 1, 2
$$;

-- Let every role that may write an instance call them.
create or replace function billing_admit_writers() returns void
    language plpgsql set search_path = public, pg_temp
as $$
declare
    denied record;
begin
    for denied in select * from billing_denied_functions() loop
        execute format('grant execute on function %s to %I', denied.function, denied.role);
    end loop;
end $$;
revoke execute on function billing_admit_writers() from public;
do $$ begin perform billing_admit_writers(); end $$;
