-- Instances whose plan cannot be found: there is no default price, so nothing is charged for them.
select count(*),
       format(case count(*) when 1 then '%s instance has' else '%s instances have' end || ' a plan_id that no plan has as its id or, while active, as its provider_plan_id; quarantined.', count(*)),
       'select i.plan_id, count(*) from vps_instances i where not exists (select from vps_plans p where p.id::text = i.plan_id '
       'or (p.active and p.provider_plan_id = i.plan_id)) group by 1;'
  from vps_instances i
 where not exists (select from vps_plans p where p.id::text = i.plan_id)
   and not exists (select from vps_plans p where p.active and p.provider_plan_id = i.plan_id)
having count(*) > 0;
