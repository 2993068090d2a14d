-- A repeatable file was applied again.
update {table} set checksum = %(checksum)s, applied_at = clock_timestamp(), execution_time_ms = %(duration_ms)s
 where filename = 'containerstacks-billing/' || %(file_name)s and version is null
returning applied_at;
