-- What 031 reads: 200 MB a second, where nothing was billed by us yet.
select format('vps_billing_cycles (%s) is read once more, in about %s s, for what the host billed meanwhile; nobody waits for it.',
              pg_size_pretty(bytes), 1 + bytes / 200000000)
  from (select pg_relation_size(to_regclass('vps_billing_cycles')) as bytes) size
 where bytes is not null;
