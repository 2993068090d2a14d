-- Failed rows of the host. It added one per hour for ever, also for hours that it charged later, so what is owed is unknown.
select count(*),
       format(case count(*) when 1 then '%s failed row' else '%s failed rows' end
              || ' of the host application, %s in all, will stay failed: billing never collects that.',
              count(*), round(sum(total_amount), 2)),
       'select organization_id, count(*), sum(total_amount), min(billing_period_start), max(billing_period_end) '
       'from vps_billing_cycles where run_id is null and status = ''failed'' group by 1 order by 3 desc;'
  from vps_billing_cycles where run_id is null and status = 'failed' having count(*) > 0;
