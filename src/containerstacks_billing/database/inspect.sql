-- What `doctor` reads from the database. Everything here only reads, and works as soon as a login works: tables that are not
-- there yet, or may not be read, are an answer and not an error.


-- name: examine_server
-- The server behind the connection. The clock is the real one: what is examined is the clock itself.
select current_setting('server_version') as version,
    current_setting('server_version_num')::integer as version_number,
    pg_is_in_recovery() as in_recovery,
    current_setting('default_transaction_read_only')::boolean as read_only,
    current_user::text as role,
    current_database()::text as database,
    pg_backend_pid() as backend,
    extract(epoch from clock_timestamp())::float8 as clock


-- name: examine_backend
-- The server process that serves this client right now.
select pg_backend_pid()


-- name: examine_missing_tables
-- Tables of a list that do not exist where an unqualified name is looked for.
select name
from unnest(%(tables)s::text[]) as name
where to_regclass(quote_ident(name)) is null
order by name


-- name: examine_schema
-- Whether the current role may use the schema that the tables stand in.
select has_schema_privilege('public', 'USAGE')


-- name: examine_missing_rights
-- Rights of a list that the current role does not have, on tables that exist.
select wanted.name, wanted.privilege
from unnest(%(tables)s::text[], %(privileges)s::text[]) with ordinality as wanted (name, privilege, position)
where to_regclass(quote_ident(wanted.name)) is not null
  and not has_table_privilege(to_regclass(quote_ident(wanted.name)), wanted.privilege)
order by wanted.position


-- name: examine_use_of_tokens
-- Whether the current role may note when a token was used; true where there is no such table.
select coalesce(bool_and(has_column_privilege(attrelid, attnum, 'update')), true)
from pg_attribute where attrelid = to_regclass('billing_tokens') and attname = 'last_used_at';


-- name: examine_users
-- Whether the current role may read these columns of the host's users.
select coalesce(bool_and(has_column_privilege(attrelid, attnum, 'select')), true)
from pg_attribute where attrelid = to_regclass('users') and attname = any (%(columns)s::text[])


-- name: examine_hidden_tables
-- Tables of a list whose row security binds the current role and may hide rows from it: from its reading, or from an UPDATE or DELETE
-- that it has the right to, which would pass over them without an error. A permissive policy that is true for every row hides
-- none, unless a restrictive one stands beside it. An INSERT without a policy is an error by itself.
select name
from unnest(%(tables)s::text[]) as name
join pg_class on oid = to_regclass(quote_ident(name))
where row_security_active(oid)
  and not coalesce((
      select bool_and(polpermissive)
          and bool_or(shows_all and polcmd in ('*', 'r'))
          and (bool_or(shows_all and polcmd in ('*', 'w')) or not has_any_column_privilege(pg_class.oid, 'UPDATE'))
          and (bool_or(shows_all and polcmd in ('*', 'd')) or not has_table_privilege(pg_class.oid, 'DELETE'))
      from pg_policy, lateral (
          select coalesce(polpermissive and pg_get_expr(polqual, polrelid) = 'true', false) as shows_all
      ) one
      where polrelid = pg_class.oid
        and exists (select from unnest(polroles) member where member = 0 or pg_has_role(member, 'usage'))), false)
order by name


-- name: examine_missing_sequences
-- Sequences of a list that exist and that the current role may not draw from.
select name
from unnest(%(sequences)s::text[]) as name
where to_regclass(quote_ident(name)) is not null
  and not has_sequence_privilege(to_regclass(quote_ident(name)), 'USAGE')
order by name


-- name: examine_daemons
-- The daemons that reported, the liveliest first, and every how many minutes each said that it bills.
with
-- include: heard_of
select daemon_instance_id, status, error_message, extract(epoch from billing_clock() - heartbeat_at)::float8 as age_seconds,
    left(metadata ->> 'interval_minutes', 10) as interval_minutes,
    extract(epoch from billing_clock() - started_at)::float8 as started_seconds, coalesce(metadata, '{}') as process
from heard_of order by heartbeat_at desc nulls last, id desc limit 20


-- name: examine_foreign_debits
-- Hourly debits of the last day that carry no key of ours: the host's own scheduler takes money beside us.
select count(*)
from payment_transactions
where payment_method = 'wallet_debit' and coalesce(provider_transaction_id, '') not like 'billing-%%'
  and created_at between billing_clock() - interval '1 day' and billing_clock()
  and description like 'VPS Hourly Billing - %%'


-- name: examine_billable_instances
-- How many instances there are to bill, and how many of any status.
select count(*) filter (where '*' = any (%(statuses)s::text[]) or status = any (%(statuses)s::text[])), count(*)
from vps_instances


-- name: examine_denied_writers
-- Roles that may write an instance and not call the functions of its triggers.
select distinct role::text from billing_denied_functions() order by 1

-- name: server_identity
-- The cluster, the timeline that is written and the start of this server; nothing of a standby.
select (select system_identifier::text from pg_control_system()),
    case when not pg_is_in_recovery() then ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer end,
    pg_postmaster_start_time();
