-- The folder in front of the file name keeps our 012 apart from the host's. A repeatable file has no number and one row.
insert into {table} (filename, checksum, applied_at, execution_time_ms, version, name)
values ('containerstacks-billing/' || %(file_name)s, %(checksum)s, clock_timestamp(), %(duration_ms)s, nullif(%(version)s, 0), %(name)s)
returning applied_at;
