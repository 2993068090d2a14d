-- A small table of ours, and indexes over two others of ours.
select 'Creates billing_set_aside_counts: nothing of the host''s is locked.'
union all
select format('%s (%s) gets an index; a run that ends waits for about %s s.', oid::regclass, pg_size_pretty(pg_relation_size(oid)),
              1 + pg_relation_size(oid) / 100000000)
  from pg_class where oid in (to_regclass('billing_quarantine'), to_regclass('billing_runways'));
