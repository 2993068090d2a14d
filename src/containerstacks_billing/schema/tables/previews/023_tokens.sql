-- An index over the host's ledger, built concurrently, and two over ours. Durations are estimated as in 013: 200 MB a second read,
-- which a concurrent build does twice, and 500,000 index entries a second built.
select 'Creates billing_tokens: nothing of the host''s is locked.'
union all
select format('%s (%s) gets an index; runs wait for about %s s.', oid::regclass, pg_size_pretty(pg_relation_size(oid)),
              1 + pg_relation_size(oid) / 200000000)
  from pg_class where oid in (to_regclass('billing_runs'), to_regclass('billing_events'))
union all
select format('An index of payment_transactions (about %s rows, %s), of the debits that are not ours, is built concurrently in about '
              '%s s; nobody waits for it, it waits for transactions that are open at that time.',
              row_count, pg_size_pretty(bytes), 1 + 2 * bytes / 200000000 + row_count / 500000)
  from (select pg_relation_size(oid) as bytes,
               (case when reltuples < 0 then pg_relation_size(oid) / 200 else reltuples end)::bigint as row_count
          from pg_class where oid = to_regclass('payment_transactions')) as size;
