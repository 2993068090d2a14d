-- Wallets whose balance was not the sum of their entries when billing first saw them.
select count(*),
       format(case count(*) when 1 then '%s wallet' else '%s wallets' end || ' held something other than the sum of the completed'
              ' ledger entries; the difference, %s in all, is kept as an opening.',
              count(*), round(sum(billing_opening), 2)),
       'select id, organization_id, currency, balance, billing_opening from wallets where billing_opening <> 0 order by abs(billing_opening) desc;'
  from wallets where billing_opening <> 0 having count(*) > 0;
