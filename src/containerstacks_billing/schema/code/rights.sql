-- Roles of least privilege, offered and not made: roles belong to the whole server, so a migration that made one unasked would
-- reach beyond its database. The owner of the tables says
--
--     select billing_admit('billing');                        the daemon, built-in billing and `run`
--     select billing_admit('monitoring', reading => true);    status, runs, verify and doctor
--
-- and again after an upgrade. It gives what billing needs and takes nothing away, because an application that bills by itself
-- is a role with rights of its own.

-- locks: Creates billing_admit(), which gives a role the rights to bill: no table is locked and no role is made.

-- What billing needs, object by object; a row lock needs UPDATE. The list is that of database/grants.py, which a test compares.
-- Rights are those of whole tables, so new columns are included. A role that only looks does not read the hashes of tokens; billing reads
-- them and writes when a token was used, but a token is made and revoked by the owner of the tables.
create or replace function billing_rights(reading boolean default false) returns table (object name, rights text[])
    language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select object, case when reading then array['SELECT'] else rights end
    from (values
        ('organizations'::name,         array['SELECT']),
        ('wallets',                     array['SELECT', 'UPDATE']),
        ('vps_plans',                   array['SELECT']),
        ('vps_instances',               array['SELECT', 'UPDATE']),
        ('payment_transactions',        array['SELECT', 'INSERT']),
        ('vps_billing_cycles',          array['SELECT', 'INSERT', 'UPDATE']),
        ('billing_daemon_status',       array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('billing_application_sides',   array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('billing_policies',            array['SELECT', 'INSERT', 'UPDATE']),
        ('billing_leases',              array['SELECT', 'INSERT', 'UPDATE']),
        ('billing_runs',                array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('billing_run_totals',          array['SELECT', 'INSERT', 'UPDATE']),
        ('plan_price_versions',         array['SELECT']),
        ('billing_usage_segments',      array['SELECT', 'INSERT', 'UPDATE']),
        ('billing_charged_until',       array['SELECT', 'INSERT', 'UPDATE']),
        ('billing_metering_failures',   array['SELECT']),
        ('billing_quarantine',          array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('billing_quarantine_counts',    array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('billing_decisions',           array['SELECT', 'INSERT']),
        ('billing_price_corrections',   array['SELECT']),
        ('billing_adjustments',         array['SELECT']),
        ('billing_adjustment_orders',   array['SELECT']),
        ('billing_tokens',              array['SELECT']),
        ('billing_minimum_balances',    array['SELECT']),
        ('billing_statements',          array['SELECT', 'INSERT']),
        ('billing_months',              array['SELECT', 'INSERT', 'UPDATE']),
        ('billing_month_totals',        array['SELECT', 'INSERT']),
        ('billing_verifications',       array['SELECT', 'INSERT', 'DELETE']),
        ('billing_leak_reports',        array['SELECT', 'INSERT', 'DELETE']),
        ('billing_events',              array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('billing_runways',             array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('schema_migrations',           array['SELECT']),
        ('billing_daemon_status_id_seq', array['USAGE'])
    ) as needed (object, rights)
    where not reading or (rights <> array['USAGE'] and object <> 'billing_tokens')
$$;
comment on function billing_rights(boolean) is 'The rights that a role needs to bill or, reading, to look; billing_admit() gives them';

-- Give a role policies of its own on every table of these whose rows a policy of the host would hide from it, and return what was done.
-- Reading, it gets one to read. A policy is of no effect while its table has no row security, so none is made there.
create or replace function billing_admit_rows(admitted name, reading boolean default false) returns setof text
    language plpgsql set search_path = public, pg_temp
as $$
declare
    guarded   name;
    statement text;
begin
    for guarded in
        select object from billing_rights(reading) join pg_class on oid = to_regclass(object::text) where relrowsecurity order by object
    loop
        execute format('drop policy if exists %I on %I', left('billing ' || admitted, 63), guarded);
        statement := format('create policy %I on %I %s to %I using (true)%s', left('billing ' || admitted, 63), guarded,
            case when reading then 'for select' else 'for all' end, admitted,
            case when reading then '' else ' with check (true)' end);
        execute statement;
        return next statement;
    end loop;
end $$;
comment on function billing_admit_rows(name, boolean) is 'Gives a role policies where row security would hide rows from it; for the owner of the tables';
revoke execute on function billing_admit_rows(name, boolean) from public;

-- Give a role these rights and return the statements that were run. A role that does not exist is made, if the caller may, and
-- cannot log in until the caller allows it. It runs with the rights of the caller, and only its owner may call it. A server grants
-- less than it was asked for with a mere warning, so the rights of the role are checked in the end: either it has all of
-- them, or nothing was done.
create or replace function billing_admit(admitted name, reading boolean default false) returns setof text
    language plpgsql set search_path = public, pg_temp
as $$
declare
    -- The record of migrations has a name of its own where schema_migrations is another tool's.
    record_table constant name := coalesce((select relname from pg_class where oid = to_regclass('public.containerstacks_billing_migrations')),
        'schema_migrations');
    statement text;
    problem   text;
begin
    -- Quoted or not, PostgreSQL takes the first for all roles and the second for no role.
    if admitted is null or admitted in ('', 'public', 'none') or admitted like 'pg\_%' then
        raise exception 'the name % is none that a role may have', coalesce(quote_literal(admitted), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if not exists (select from pg_roles where rolname = admitted) then
        begin
            execute format('create role %I nologin', admitted);
            raise notice 'The role % is new and cannot log in yet: alter role % login', quote_ident(admitted), quote_ident(admitted);
        exception when duplicate_object or unique_violation then
            null; -- another session was faster
        end;
    end if;
    for statement in
        select format(asked, admitted) from (values
            (1, format('grant connect on database %I to ', current_database()) || '%I'),
            (2, 'grant usage on schema public to %I')) as entrance (place, asked)
        union all
        select format('grant %s on %s %I to %I', lower(array_to_string(rights, ', ')),
            case when array['USAGE'] = rights then 'sequence' else 'table' end,
            case object when 'schema_migrations' then record_table else object end, admitted)
        from billing_rights(reading)
        union all
        select format('grant update (last_used_at) on billing_tokens to %I', admitted) where not reading
        union all
        select format('grant select (id, role) on users to %I', admitted)
        where pg_has_role((select relowner from pg_class where oid = 'users'::regclass), 'usage')
    loop
        execute statement;
        return next statement;
    end loop;

    select string_agg(missing, ', ') into problem
    from (
        select 'CONNECT on the database' where not has_database_privilege(admitted, current_database(), 'connect')
        union all
        select 'USAGE on the schema public' where not has_schema_privilege(admitted, 'public', 'usage')
        union all
        select 'SELECT (id, role) on users'
        where not has_column_privilege(admitted, 'users', 'id', 'select') or not has_column_privilege(admitted, 'users', 'role', 'select')
        union all
        select wanted || ' on ' || object from billing_rights(reading), unnest(rights) wanted
        where not case when wanted = 'USAGE' then has_sequence_privilege(admitted, object::text, wanted)
            else has_table_privilege(admitted, case object when 'schema_migrations' then record_table else object end::text, wanted) end
    ) as lacking (missing);
    if problem is not null then
        raise exception 'the role % would still lack %', quote_ident(admitted), problem
            using errcode = 'insufficient_privilege', hint = 'Call billing_admit() as the owner of the database and of its tables.';
    end if;
    return query select billing_admit_rows(admitted, reading);

    select string_agg(distinct object, ', ') into problem
    from billing_rights(reading), unnest(array['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) other
    where rights <> array['USAGE'] and other <> all (rights) and has_table_privilege(admitted, to_regclass(object::text), other);
    if problem is not null then
        raise warning 'The role % may do more than it needs, by other grants or memberships: to %', quote_ident(admitted), problem;
    end if;
end $$;
comment on function billing_admit(name, boolean) is 'Gives a role the rights to bill or, reading, to look, and no others; for the owner of the tables';
revoke execute on function billing_admit(name, boolean) from public;
