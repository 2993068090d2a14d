-- A trigger on the host's plans, and the first version of every price, in one transaction. Estimated from the catalog: 2,000
-- versions a second written.
select 'Creates plan_price_versions: nothing of the host''s is locked.' where to_regclass('vps_plans') is null
union all
select format('Creates plan_price_versions, and on vps_plans the trigger billing_price_changed; vps_plans is locked against writers '
              'for about %s s, while the price of each plan (%s) is recorded.', 1 + pg_relation_size(oid) / 400000,
              pg_size_pretty(pg_relation_size(oid)))
  from pg_class where oid = to_regclass('vps_plans');
