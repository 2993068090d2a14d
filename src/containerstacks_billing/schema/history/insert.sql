-- The folder in front of the file name keeps our 012 apart from the host's.
insert into {table} (filename, checksum, applied_at, execution_time_ms, version, name)
values ('containerstacks-billing/' || %(file_name)s, %(checksum)s, clock_timestamp(), %(duration_ms)s, %(version)s, %(name)s)
returning applied_at;
