-- Wallets whose balance was not the sum of their entries when billing first saw them.
select count(*),
       format('%s wallets held something other than the sum of their completed ledger entries; the difference, %s in all, is kept as their opening.',
              count(*), round(sum(billing_opening), 2)),
       'select id, organization_id, currency, balance, billing_opening from wallets where billing_opening <> 0 order by abs(billing_opening) desc;'
  from wallets where billing_opening <> 0 having count(*) > 0;
