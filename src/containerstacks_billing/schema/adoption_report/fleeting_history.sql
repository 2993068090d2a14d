-- Foreign keys that delete charges with their instance. They come back when the host's installer is run again.
select count(*),
       format(case count(*) when 1 then '%s foreign key of vps_billing_cycles is' else '%s foreign keys of vps_billing_cycles are' end || ' back: deleting an instance or organization fails or deletes its charges.', count(*)),
       string_agg(format('alter table vps_billing_cycles drop constraint %I;', conname), ' ' order by conname)
  from pg_constraint
 where contype = 'f' and conrelid = 'vps_billing_cycles'::regclass
   and confrelid in ('vps_instances'::regclass, 'organizations'::regclass, 'payment_transactions'::regclass)
having count(*) > 0;
