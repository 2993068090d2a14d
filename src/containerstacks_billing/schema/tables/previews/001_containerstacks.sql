-- Which of the host's tables are missing and would be created.
select 'Creates ' || string_agg(name, ', ' order by position) || ': nothing is locked.'
  from unnest(array['users', 'organizations', 'wallets', 'vps_plans', 'vps_instances', 'payment_transactions',
                    'vps_billing_cycles']) with ordinality as wanted (name, position)
 where to_regclass(name) is null
having count(*) > 0;
