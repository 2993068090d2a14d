-- Columns of our runs, and a trigger on the host's instances; neither reads or writes a row but for a small index. 500,000 rows a
-- second read.
select format('billing_runs (%s): three columns and an index are added; no run can begin or end for about %s s.',
              pg_size_pretty(pg_relation_size(oid)), 1 + greatest(reltuples, 0)::bigint / 500000)
  from pg_class where oid = to_regclass('billing_runs')
union all
select 'vps_instances gets the trigger billing_keep_rated_until; locked against writers for milliseconds.'
 where to_regclass('vps_instances') is not null;
