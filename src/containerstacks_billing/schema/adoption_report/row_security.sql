-- Tables whose row security hides rows from this role: what is hidden is not billed.
with hidden as (
    select name from unnest(array['organizations', 'wallets', 'vps_plans', 'vps_instances', 'payment_transactions',
                                  'vps_billing_cycles']) as name
     where row_security_active(name::regclass)
)
select count(*),
       format('Row security applies to this role on %s: rows it hides are not billed.', string_agg(name, ', ' order by name)),
       format('select billing_admit_rows(%L);', current_user)
  from hidden having count(*) > 0;
