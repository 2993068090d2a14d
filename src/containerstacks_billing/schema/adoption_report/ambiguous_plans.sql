-- Instances whose plan_id names no plan by id, and several active plans with different prices by provider_plan_id.
with ambiguous as (
    select provider_plan_id from vps_plans where active
     group by provider_plan_id
    having count(*) > 1 and count(distinct base_price + coalesce(markup_price, 0)) > 1
)
select count(*),
       format(case count(*) when 1 then '%s instance names' else '%s instances name' end || ' a provider plan that several active plans with different prices share; quarantined until one is left.', count(*)),
       'select provider_plan_id, array_agg(id), array_agg(base_price + markup_price) from vps_plans where active '
       'group by 1 having count(*) > 1 and count(distinct base_price + coalesce(markup_price, 0)) > 1;'
  from vps_instances i
  join ambiguous a on a.provider_plan_id = i.plan_id
 where not exists (select from vps_plans p where p.id::text = i.plan_id) having count(*) > 0;
