-- Periods of the host that overlap without starting together: half an hour billed twice is money too.
with cycles as (
    select billing_period_start, total_amount,
           max(billing_period_end) over (partition by vps_instance_id order by billing_period_start, id
                                         rows between unbounded preceding and 1 preceding) as billed_until,
           lag(billing_period_start) over (partition by vps_instance_id order by billing_period_start, id) as previous_start
      from vps_billing_cycles
     where run_id is null and status = 'billed'
)
select count(*),
       format(case count(*) when 1 then '%s billed period of the host application overlaps' else '%s billed periods of the host application overlap' end || ' an earlier one of the same instance. Nothing of it is changed.', count(*)),
       'select a.vps_instance_id, a.id, a.billing_period_start, a.billing_period_end, b.id, b.billing_period_start, b.billing_period_end '
       'from vps_billing_cycles a join vps_billing_cycles b on b.vps_instance_id = a.vps_instance_id '
       'and b.billing_period_start > a.billing_period_start and b.billing_period_start < a.billing_period_end '
       'where a.run_id is null and b.run_id is null and a.status = ''billed'' and b.status = ''billed'' order by 1, 3;'
  from cycles where billing_period_start < billed_until and billing_period_start <> previous_start having count(*) > 0;
