-- Our files that were applied, oldest number first; repeatable ones have no number.
select coalesce(version, 0), name, checksum, applied_at, execution_time_ms from {table}
 where version is not null or starts_with(filename, 'containerstacks-billing/code/')
 order by version, filename;
