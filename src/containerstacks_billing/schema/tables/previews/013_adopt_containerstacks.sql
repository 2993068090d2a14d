-- What adoption would change and lock in this database. Sizes are read from the catalog, durations estimated from them:
-- 200 MB a second read, 500,000 index entries a second built, 50,000 rows a second updated.
with sizes as (
    select name, pg_relation_size(to_regclass(name)) as bytes,
           (select case when reltuples < 0 then pg_relation_size(oid) / 200 else reltuples end
              from pg_class where oid = to_regclass(name))::bigint as row_count
      from unnest(array['vps_billing_cycles', 'vps_instances', 'wallets', 'payment_transactions']) as name
     where to_regclass(name) is not null
), ledger as (
    select * from sizes where name = 'vps_billing_cycles'
), keys as (
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
), sentences as (
    select 1 as position, format('vps_billing_cycles (about %s rows, %s): five columns are added and amounts become exact '
               'without rewriting a row; locked against everybody for milliseconds.', row_count, pg_size_pretty(bytes)) as sentence
      from ledger
    union all
    select 2, format('vps_billing_cycles loses the foreign keys %s, so that charges outlive their instance; it, vps_instances, '
                     'organizations and payment_transactions are locked for milliseconds.', names)
      from keys where names is not null
    union all
    select 3, format('wallets is locked for about %s s, while payment_transactions (%s) is summed once.',
                     1 + bytes / 200000000, pg_size_pretty(bytes))
      from sizes where name = 'payment_transactions'
    union all
    select 4, format('Three indexes of vps_billing_cycles are built concurrently in about %s s; nobody waits for them, they wait '
                     'for transactions that are open at that time.', 1 + 4 * bytes / 200000000 + row_count / 500000)
      from ledger
    union all
    select 5, format('The indexes %s are dropped; locked for milliseconds.', names) from stale where names is not null
    union all
    select 6, format('vps_instances: about %s watermarks are set in one statement; the rows are locked for about %s s, after '
                     'vps_billing_cycles has been read in about %s s.', i.row_count, 1 + i.row_count / 50000,
                     1 + l.bytes / 200000000)
      from sizes i cross join ledger l where i.name = 'vps_instances'
    union all
    select 7, format('The amounts stay inexact, and nothing is billed, until %s is recreated; migrate will print the statements.',
                     names)
      from readers where names is not null
)
select sentence from sentences order by position;
