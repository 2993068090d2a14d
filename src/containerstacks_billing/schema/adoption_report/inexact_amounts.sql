-- Columns of amounts that kept a fixed number of decimals because something reads them; nothing is billed until they are exact.
with held as (
    select attnum, attname from pg_attribute
     where attrelid = 'vps_billing_cycles'::regclass and attname in ('hourly_rate', 'total_amount') and atttypmod <> -1
), readers as (
    select distinct r.ev_class as oid, c.relkind
      from held h
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = 'vps_billing_cycles'::regclass
                      and d.refobjsubid = h.attnum and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite r on r.oid = d.objid
      join pg_class c on c.oid = r.ev_class
), changes as (
    select string_agg(format('alter table vps_billing_cycles alter column %I type numeric;', attname), ' ') as sql from held
)
select (select count(*) from held),
       format('Amounts of vps_billing_cycles cannot become exact while %s reads them; nothing is billed until they are. '
              'The statements drop and recreate it; views on top of it, and its grants, are yours to add.',
              coalesce((select string_agg(oid::regclass::text, ', ') from readers), 'a policy, trigger or generated column')),
       'begin; '
       || coalesce((select string_agg(format('drop %s %s; ', case relkind when 'm' then 'materialized view' else 'view' end,
                                             oid::regclass), '') from readers), '')
       || (select sql from changes) || ' '
       || coalesce((select string_agg(format('create %s %s as %s ', case relkind when 'm' then 'materialized view' else 'view' end,
                                             oid::regclass, pg_get_viewdef(oid)), ' ') from readers), '')
       || 'commit;'
 where exists (select from held);
