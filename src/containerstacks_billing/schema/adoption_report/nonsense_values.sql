-- Values no arithmetic can use: NaN, negative prices, infinite instants.
with nonsense as (
    select 'wallets.balance' as place, count(*) as found from wallets where balance is null or balance = 'NaN'
    union all
    select 'vps_plans prices', count(*) from vps_plans
     where base_price is null or base_price = 'NaN' or base_price < 0 or markup_price = 'NaN' or base_price + coalesce(markup_price, 0) < 0
    union all
    select 'payment_transactions.amount', count(*) from payment_transactions where amount = 'NaN'
    union all
    select 'vps_instances watermarks', count(*) from vps_instances
     where rated_until is null and isfinite(coalesce(last_billed_at, created_at)) is not true
    union all
    select 'vps_billing_cycles', count(*) from vps_billing_cycles
     where run_id is null and (total_amount = 'NaN' or hourly_rate = 'NaN' or not isfinite(billing_period_start)
                               or not isfinite(billing_period_end) or billing_period_end <= billing_period_start)
)
select sum(found)::bigint,
       'Values that cannot be billed with: ' || string_agg(place || ' ' || found, ', ' order by place) filter (where found > 0)
       || '. What depends on them is quarantined or left out of sums.',
       'select id, balance from wallets where balance is null or balance = ''NaN''; '
       'select id, base_price, markup_price from vps_plans where base_price is null or base_price = ''NaN'' or markup_price = ''NaN'' or base_price < 0; '
       'select id, amount from payment_transactions where amount = ''NaN''; '
       'select id, created_at, last_billed_at from vps_instances where rated_until is null and isfinite(coalesce(last_billed_at, created_at)) is not true;'
  from nonsense having sum(found) > 0;
