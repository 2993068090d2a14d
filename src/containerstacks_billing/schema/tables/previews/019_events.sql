-- New tables, and one look for wallets that owe already; 200 MB a second read.
select 'Creates billing_events and billing_runways: nothing of the host''s is locked.'
union all
select format('wallets (%s) is read once, in about %s s; nobody waits for that.', pg_size_pretty(bytes), 1 + bytes / 200000000)
  from (select pg_relation_size(to_regclass('wallets')) as bytes) as size
 where bytes is not null;
