-- Failed rows of the host, which wrote a longer one every hour, also for hours that it charged later: counted once, by distinct hours.
-- Those since the watermark of their instance are unrated for billing too, so the first run charges them.
with unpaid as (
    select vps_instance_id, range_agg(tstzrange(billing_period_start, billing_period_end)) as hours, max(hourly_rate) as hourly_rate
      from vps_billing_cycles
     where run_id is null and status = 'failed' and hourly_rate <> 'NaN' and billing_period_start < billing_period_end
       and isfinite(billing_period_start) and isfinite(billing_period_end)
     group by vps_instance_id
), paid as (
    select vps_instance_id, range_agg(tstzrange(billing_period_start, billing_period_end)) as hours
      from vps_billing_cycles
     where run_id is null and status = 'billed' and billing_period_start < billing_period_end
       and vps_instance_id in (select vps_instance_id from unpaid)
     group by vps_instance_id
), owed as (
    select hourly_rate, extract(epoch from upper(part) - lower(part)) / 3600 as hours,
           coalesce(lower(part) >= rated_until, false) as unrated
      from (
          select unpaid.hourly_rate, instance.rated_until,
                 unnest(case when instance.rated_until is null then unpaid.hours - coalesce(paid.hours, '{}')
                     else (unpaid.hours - coalesce(paid.hours, '{}')) * tstzmultirange(tstzrange(null, instance.rated_until))
                 end) as part
            from unpaid left join paid using (vps_instance_id) left join vps_instances instance on instance.id = vps_instance_id
          union all
          select unpaid.hourly_rate, instance.rated_until,
                 unnest((unpaid.hours - coalesce(paid.hours, '{}')) * tstzmultirange(tstzrange(instance.rated_until, null)))
            from unpaid left join paid using (vps_instance_id) join vps_instances instance on instance.id = vps_instance_id
           where instance.rated_until is not null
      ) divided
), total as (
    select coalesce(sum(hours), 0) as hours, coalesce(sum(hours * hourly_rate), 0) as amount,
           coalesce(sum(hours) filter (where unrated), 0) as unrated_hours,
           coalesce(sum(hours * hourly_rate) filter (where unrated), 0) as unrated_amount
      from owed
), written as (
    select count(*) as rows, sum(nullif(total_amount, 'NaN')) as amount
      from vps_billing_cycles where run_id is null and status = 'failed'
)
select rows,
       format(case rows when 1 then '%s failed row' else '%s failed rows' end || ' of the host application, %s in all. Counted once they are '
              '%s h worth %s. Of these %s h, %s, are since the watermarks: the first run charges them, as past due where a wallet cannot '
              'pay. Earlier ones are never charged. To waive them all before that run, or to charge the earlier ones too: '
              'containerstacks-billing release --passed-over --all --waive (or --charge) --reason …, with --dry-run to see it first.',
              rows, round(written.amount, 2), round(hours, 1), round(total.amount, 2), round(unrated_hours, 1), round(unrated_amount, 2)),
       'select organization_id, vps_instance_id, count(*), min(billing_period_start), max(billing_period_end), max(total_amount) '
       'from vps_billing_cycles where run_id is null and status = ''failed'' group by 1, 2 order by 6 desc;'
  from written, total where rows > 0;
