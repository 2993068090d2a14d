-- Instances whose organization has no wallet in the billing currency: they will be quarantined.
select count(*),
       'Instances without a wallet to pay for them: ' || count(*) || '. They are quarantined until their organization has one in '
       || %(currency)s || '.',
       'select i.organization_id, count(*) from vps_instances i where not exists (select from wallets w '
       'where w.organization_id = i.organization_id and upper(w.currency) = ''' || %(currency)s || ''') group by 1;'
  from vps_instances i
 where not exists (select from wallets w where w.organization_id = i.organization_id and upper(w.currency) = %(currency)s)
having count(*) > 0;
