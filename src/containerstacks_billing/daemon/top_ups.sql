-- name: organizations_that_can_pay
-- Organizations that are past due and whose paying wallet covers their oldest past-due hour, so that a run of theirs pays
-- something. Read from what was announced as past due, which an index keeps apart from the rest of the fleet; less than a
-- cent is never announced and waits for the next run. While a run is held, money waits for the decision.
select runway.organization_id
from billing_runways runway
join wallets wallet on wallet.id = runway.wallet_id and wallet.organization_id = runway.organization_id,
lateral (
    select case when billing_period_end - billing_period_start > interval '1 hour' then hourly_rate else total_amount end as amount
    from vps_billing_cycles charge
    where charge.organization_id = runway.organization_id and charge.status = 'failed' and charge.run_id is not null
      and charge.total_amount > 0
    order by billing_period_start, vps_instance_id
    limit 1
) oldest
where runway.past_due_since is not null
  and wallet.past_due_since is not null
  and wallet.balance between 0 and 100000000000
  and wallet.balance > wallet.billing_carry
  and wallet.balance - wallet.billing_carry >= oldest.amount
  and (select outcome from billing_runs where organization_id is null and outcome is not null order by id desc limit 1)
      is distinct from 'held'
order by runway.organization_id
limit %(limit)s;
