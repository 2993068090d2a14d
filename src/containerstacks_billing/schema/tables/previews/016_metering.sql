-- Triggers on the host's instances; to create one reads no row.
select 'Creates billing_usage_segments and billing_metering_failures: nothing of the host''s is locked.'
union all
select 'vps_instances gets the triggers of metering (billing_begin_metering, billing_read_policies, billing_move_watermark, '
       'billing_close_segments, billing_close_deleted); locked against writers for milliseconds.'
 where to_regclass('vps_instances') is not null;
