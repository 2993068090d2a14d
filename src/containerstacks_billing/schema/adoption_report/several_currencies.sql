-- Organizations with wallets in more than one currency: nothing is converted.
with several as (
    select organization_id from wallets group by organization_id having count(distinct currency) > 1
)
select count(*),
       format(case count(*) when 1 then '%s organization has' else '%s organizations have' end || ' wallets in several currencies: only the one set as CURRENCY pays, nothing is converted. The host writes one balance to all of them with each movement: keep one.', count(*)),
       'select organization_id, array_agg(currency order by currency), array_agg(balance order by currency) from wallets '
       'group by 1 having count(distinct currency) > 1;'
  from several having count(*) > 0;
