-- Organizations with more than one wallet of a currency: the oldest pays, the others are left alone.
with several as (
    select organization_id, currency, count(*) as wallets from wallets group by organization_id, currency having count(*) > 1
)
select count(*),
       format(case count(*) when 1 then '%s organization has' else '%s organizations have' end || ' several wallets of one currency: the oldest pays, money in the others is not used. The host writes one balance to all of them with each movement: keep one.', count(*)),
       'select organization_id, currency, array_agg(id order by created_at, id), array_agg(balance order by created_at, id) '
       'from wallets group by 1, 2 having count(*) > 1;'
  from several having count(*) > 0;
