-- Functions of the host's triggers that copy whole rows: they fail once the table has a column more than what they write to.
with copying as (
    select distinct p.proname::text as name, t.tgrelid::regclass::text as table_name
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid
     where t.tgrelid in (to_regclass('vps_instances'), to_regclass('wallets'), to_regclass('vps_plans'),
                         to_regclass('vps_billing_cycles'), to_regclass('payment_transactions'))
       and not t.tgisinternal and p.proname not like 'billing\_%' and p.prosrc ~* '\m(old|new)\.\*'
)
select count(*),
       format('Functions of triggers copy whole rows by position: %s. They work now; name the columns in them, or a later column breaks them.',
              string_agg(format('%s (%s)', name, table_name), ', ' order by name, table_name)),
       string_agg(format('\sf %s', name), ' ' order by name)
  from copying having count(*) > 0;
