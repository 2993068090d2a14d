-- Watermarks in the future, which the host wrote: billing waits until the clock gets there.
select count(*),
       format(case count(*) when 1 then '%s instance is' else '%s instances are' end
              || ' marked as billed beyond now, the furthest until %s; quarantined until then, or until the date is corrected.', count(*),
              to_char(max(last_billed_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')),
       'select id, label, last_billed_at from vps_instances where last_billed_at > now() + interval ''1 hour'' order by 3 desc;'
  from vps_instances where isfinite(last_billed_at) and last_billed_at > billing_clock() + interval '1 hour' having count(*) > 0;
