-- The size of every table, by the catalog. A table that was never analysed has rows of 200 bytes.
select relname, pg_relation_size(oid),
       (case when reltuples < 0 then pg_relation_size(oid) / 200 else reltuples end)::bigint,
       pg_size_pretty(pg_relation_size(oid))
  from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p');
