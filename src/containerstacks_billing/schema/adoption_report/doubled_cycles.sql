-- Hours that the host billed more than once: several billed rows of one instance that start at the same instant.
with doubled as (
    select vps_instance_id, billing_period_start, count(*) - 1 as surplus, sum(total_amount) - min(total_amount) as amount
      from vps_billing_cycles
     where run_id is null and status = 'billed'
     group by vps_instance_id, billing_period_start
    having count(*) > 1
)
select sum(surplus)::bigint,
       format('The host application billed ' || case sum(surplus) when 1 then '%s period' else '%s periods' end
              || ' more than once, %s in surplus. Nothing of it is changed; our charges cannot repeat.',
              sum(surplus), round(sum(amount), 2)),
       'select vps_instance_id, billing_period_start, count(*), sum(total_amount) from vps_billing_cycles '
       'where run_id is null and status = ''billed'' group by 1, 2 having count(*) > 1 order by 1, 2;'
  from doubled having count(*) > 0;
