-- What adoption would take away from the host's tables, by name, and what would be in its way. Reads catalogs only, so that it works
-- before anything was migrated.
with keys as (
    select string_agg(conname, ', ' order by conname) as names from pg_constraint
     where contype = 'f' and conrelid = to_regclass('vps_billing_cycles')
       and confrelid in (to_regclass('vps_instances'), to_regclass('organizations'), to_regclass('payment_transactions'))
), stale as (
    select string_agg(i.indexrelid::regclass::text, ', ' order by i.indexrelid::regclass::text) as names
      from pg_index i
     where not i.indisunique and i.indpred is null and i.indexprs is null
       and (select i.indrelid::regclass::text || ':' || string_agg(a.attname, ',' order by k.position)
              from unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
              join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum)
           in ('vps_billing_cycles:vps_instance_id', 'vps_billing_cycles:organization_id', 'vps_billing_cycles:status',
               'vps_billing_cycles:created_at', 'vps_billing_cycles:billing_period_start,billing_period_end',
               'vps_instances:last_billed_at')
), readers as (
    select string_agg(distinct r.ev_class::regclass::text, ', ') as names
      from pg_depend d join pg_rewrite r on r.oid = d.objid
      join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
     where d.classid = 'pg_rewrite'::regclass and d.refobjid = to_regclass('vps_billing_cycles')
       and a.attname in ('hourly_rate', 'total_amount')
)
select format('vps_billing_cycles loses the foreign keys %s.', names) from keys where names is not null
union all
select format('The indexes %s are dropped.', names) from stale where names is not null
union all
select format('The amounts stay inexact, and nothing is billed, until %s is recreated; migrate will print the statements.', names)
  from readers where names is not null;
