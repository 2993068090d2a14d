-- What must be true of the schema beyond the record, because it can be undone: a restore that disabled triggers, the host's installer
-- run later, a statement at the wrong prompt. Of each defect its kind and what it is about.
select 'table' as kind, name as subject, '' as on_table
  from unnest(%(tables)s::text[]) as name
 where to_regclass(quote_ident(name)) is null
union all
select case when p.body is null then 'function' else 'altered function' end, wanted.signature, ''
  from unnest(%(signatures)s::text[], %(bodies)s::text[]) as wanted (signature, body)
  left join (
    select format('%%s(%%s)', proname, replace(pg_get_function_identity_arguments(oid), '"', '')) as signature, md5(prosrc) as body
      from pg_proc where pronamespace = 'public'::regnamespace and proname like 'billing\_%%'
  ) p using (signature)
 where p.body is null or p.body <> wanted.body and wanted.body <> ''
union all
-- Those that fire always or for ordinary sessions; 'R' fires only while rows are replicated into here.
select case when t.tgenabled is null then 'trigger' else 'disabled trigger' end, wanted.name, wanted.on_table
  from unnest(%(triggers)s::text[], %(trigger_tables)s::text[]) as wanted (name, on_table)
  left join pg_trigger t on t.tgrelid = to_regclass(wanted.on_table) and t.tgname = wanted.name
 where to_regclass(wanted.on_table) is not null and t.tgenabled is distinct from 'O' and t.tgenabled is distinct from 'A'
union all
select 'index', wanted.name, 'vps_billing_cycles'
  from (values ('vps_billing_cycles_one_charge_per_hour'), ('vps_billing_cycles_past_due_hours')) as wanted (name)
 where to_regclass('vps_billing_cycles') is not null
   and not exists (select from pg_index where indexrelid = to_regclass(wanted.name) and indisvalid)
union all
select 'amount', a.attname, 'vps_billing_cycles'
  from pg_attribute a
 where a.attrelid = to_regclass('vps_billing_cycles') and a.attname in ('hourly_rate', 'total_amount')
   and a.atttypmod <> -1
union all
-- The host's successor adds backups; that they are rated is decided when the schema is adapted to it.
select 'backups', a.attname, 'vps_instances'
  from pg_attribute a
 where a.attrelid = to_regclass('vps_instances') and a.attname = 'backup_frequency' and not a.attisdropped
   and exists (select from pg_proc where proname = 'billing_has_backups' and pronamespace = 'public'::regnamespace
               and prosrc = 'select false')
union all
-- Sessions in which no trigger of billing fires, by the default of a role or of the database; the statement that ends it.
select 'replication role', coalesce('role ' || r.rolname, 'database ' || d.datname),
    case when r.oid is null then format('ALTER DATABASE %%I RESET session_replication_role;', d.datname)
         else format('ALTER ROLE %%I%%s RESET session_replication_role;', r.rolname, ' IN DATABASE ' || quote_ident(d.datname)) end
  from pg_db_role_setting s
  left join pg_roles r on r.oid = s.setrole
  left join pg_database d on d.oid = s.setdatabase
 where (s.setdatabase = 0 or d.datname = current_database())
   and exists (select from unnest(s.setconfig) as one where one = 'session_replication_role=replica')
   and (r.oid is null or has_table_privilege(r.oid, to_regclass('vps_instances'), 'INSERT, UPDATE, DELETE, TRUNCATE'))
union all
select 'replication role', 'this session', 'Remove session_replication_role from the connection string and the configuration of the server.'
 where current_setting('session_replication_role') = 'replica'
union all
-- Columns that the statements of billing name: the host's by kind of type, ours by type. What is there instead stands behind.
select 'column', format('%%s.%%s (%%s)', wanted.on_table, wanted.name,
        coalesce(format_type(a.atttypid, null) || ' instead of ' || wanted.kind, 'missing')), ''
  from (values
    ('wallets', 'id', 'uuid'), ('wallets', 'organization_id', 'uuid'), ('wallets', 'balance', 'numeric'), ('wallets', 'currency', 'text'),
    ('wallets', 'created_at', 'timestamp'), ('wallets', 'billing_carry', 'numeric'), ('wallets', 'billing_opening', 'numeric'),
    ('wallets', 'past_due_since', 'timestamp'),
    ('vps_plans', 'id', 'uuid'), ('vps_plans', 'provider_plan_id', 'text'), ('vps_plans', 'base_price', 'numeric'),
    ('vps_plans', 'markup_price', 'numeric'), ('vps_plans', 'active', 'boolean'),
    ('vps_instances', 'id', 'uuid'), ('vps_instances', 'organization_id', 'uuid'), ('vps_instances', 'plan_id', 'text'),
    ('vps_instances', 'label', 'text'), ('vps_instances', 'status', 'text'), ('vps_instances', 'created_at', 'timestamp'),
    ('vps_instances', 'last_billed_at', 'timestamp'), ('vps_instances', 'rated_from', 'timestamp'),
    ('vps_instances', 'rated_until', 'timestamp'), ('vps_instances', 'pending_segments', 'billing_pending_segment[]'),
    ('vps_instances', 'sealed_by', 'xid'), ('vps_instances', 'lasting_status', 'text'),
    ('payment_transactions', 'id', 'uuid'), ('payment_transactions', 'organization_id', 'uuid'),
    ('payment_transactions', 'amount', 'numeric'), ('payment_transactions', 'status', 'text'),
    ('vps_billing_cycles', 'id', 'uuid'), ('vps_billing_cycles', 'vps_instance_id', 'uuid'),
    ('vps_billing_cycles', 'organization_id', 'uuid'), ('vps_billing_cycles', 'billing_period_start', 'timestamp'),
    ('vps_billing_cycles', 'billing_period_end', 'timestamp'), ('vps_billing_cycles', 'hourly_rate', 'numeric'),
    ('vps_billing_cycles', 'total_amount', 'numeric'), ('vps_billing_cycles', 'status', 'text'),
    ('vps_billing_cycles', 'run_id', 'bigint'), ('vps_billing_cycles', 'plan_id', 'uuid'), ('vps_billing_cycles', 'segment_id', 'bigint'),
    ('vps_billing_cycles', 'past_due_since', 'timestamp'), ('vps_billing_cycles', 'past_due_batch', 'integer')
  ) as wanted (on_table, name, kind)
  left join pg_attribute a on a.attrelid = to_regclass(wanted.on_table) and a.attname = wanted.name and not a.attisdropped
  left join pg_type t on t.oid = a.atttypid
 where to_regclass(wanted.on_table) is not null
   and not coalesce(case wanted.kind when 'text' then t.typcategory = 'S' when 'timestamp' then t.typcategory = 'D'
                                     else a.atttypid = to_regtype(wanted.kind) end, false);
