-- What must be true of the ledger beyond the version numbers, because the host's installer, run later, could undo it.
select a.attname || ' of vps_billing_cycles holds a fixed number of decimals' as problem
  from pg_attribute a
 where a.attrelid = to_regclass('vps_billing_cycles') and a.attname in ('hourly_rate', 'total_amount')
   and a.atttypmod <> -1
union all
select 'the index ' || wanted.name || ' is missing or invalid'
  from (values ('vps_billing_cycles_one_charge_per_hour'), ('vps_billing_cycles_open_debts')) as wanted (name)
 where not exists (select from pg_index where indexrelid = to_regclass(wanted.name) and indisvalid);
