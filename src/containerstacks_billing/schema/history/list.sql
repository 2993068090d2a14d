-- Our migrations that are in, oldest number first.
select version, name, checksum, applied_at, execution_time_ms from {table} where version is not null order by version;
