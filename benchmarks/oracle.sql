-- What must hold after %(hours)s hourly runs over the fleet, computed without a line of the product's: each row of the
-- answer is a difference.
select 'instances with ' || charged || ' hours charged instead of %(hours)s: ' || count(*)
from (
    select coalesce(sum(extract(epoch from billing_period_end - billing_period_start) / 3600), 0) as charged
    from vps_instances left join vps_billing_cycles on vps_instance_id = vps_instances.id and run_id >= %(first_run)s
    group by vps_instances.id
) instance
where charged <> %(hours)s group by charged
union all
select 'hours charged twice: ' || count(*)
from (
    select billing_period_start < lag(billing_period_end) over (partition by vps_instance_id order by billing_period_start) as twice
    from vps_billing_cycles where run_id >= %(first_run)s
) pair
where twice having count(*) > 0
union all
select 'charges that are not the price of their hours: ' || count(*)
from vps_billing_cycles charge join vps_instances on vps_instances.id = vps_instance_id
join vps_plans on vps_plans.id::text = vps_instances.plan_id
where run_id >= %(first_run)s and total_amount <> round((base_price + markup_price) / 730, 8)
    * extract(epoch from billing_period_end - billing_period_start) / 3600
having count(*) > 0
union all
select 'wallets that drifted: ' || count(*)
from wallets
left join (select organization_id, sum(amount) as entries from payment_transactions group by 1) entry using (organization_id)
left join (select organization_id, sum(total_amount) as charged from vps_billing_cycles where run_id > 0 group by 1) charge
    using (organization_id)
left join (select organization_id, -sum(amount) as debits from payment_transactions where payment_method = 'wallet_debit' group by 1) debit
    using (organization_id)
where balance <> 1000000 + coalesce(entries, 0) or coalesce(charged, 0) <> coalesce(debits, 0) + billing_carry
having count(*) > 0;
