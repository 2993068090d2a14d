-- Indexes that every charge or every watermark has to keep up, and that billing does not use.
with costly as (
    select i.indexrelid::regclass::text as name
      from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = 'vps_billing_cycles'::regclass and not i.indisprimary
       and c.relname not in ('vps_billing_cycles_one_charge_per_hour', 'vps_billing_cycles_past_due', 'vps_billing_cycles_past_due_hours',
                             'vps_billing_cycles_once_past_due', 'vps_billing_cycles_long_charges')
       and coalesce(pg_get_expr(i.indpred, i.indrelid), '') not like '%run_id IS NULL%'
    union all
    select i.indexrelid::regclass::text
      from pg_index i
     where i.indrelid = 'vps_instances'::regclass
       and exists (select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[])
                      and a.attname in ('last_billed_at', 'rated_until', 'rated_from'))
)
select count(*),
       format(case count(*) when 1 then '%s index slows' else '%s indexes slow' end || ' every run down: %s, none of ours. To be dropped if nothing of yours needs that.', count(*),
              string_agg(name, ', ' order by name)),
       string_agg(format('drop index concurrently %s;', name), ' ' order by name)
  from costly having count(*) > 0;
