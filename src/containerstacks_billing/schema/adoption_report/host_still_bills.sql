-- Rows that the host wrote lately: its own billing runs beside ours, un-fenced.
select count(*),
       format(case count(*) when 1 then 'The host application billed %s period' else 'The host application billed %s periods' end || ' in the last day, the last at %s: its own billing is running. Stop it before ours starts.',
              count(*), to_char(max(created_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')),
       'select created_at, vps_instance_id, total_amount, status from vps_billing_cycles where run_id is null '
       'and created_at > now() - interval ''1 day'' order by created_at desc limit 20;'
  from vps_billing_cycles where run_id is null and isfinite(created_at) and created_at > billing_clock() - interval '1 day'
having count(*) > 0;
