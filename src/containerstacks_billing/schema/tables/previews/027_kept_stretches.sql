-- A column without a default and other triggers on the host's instances, in one transaction: the catalog alone is written.
select 'Creates functions of metering: nothing of the host''s is locked.' where to_regclass('vps_instances') is null
union all
select format('vps_instances (%s): a column is added without rewriting a row, the trigger billing_close_segments is replaced by '
              'billing_keep_stretches; locked against everybody for milliseconds.', pg_size_pretty(pg_relation_size(oid)))
  from pg_class where oid = to_regclass('vps_instances');
