-- What the tables say about the host application: which one it is, and which instances it bills.

-- name: host_tables
-- Tables that only one of the host applications has: web hosting and egress came with the successor.
select to_regclass('hosting_wallets') is not null or to_regclass('organization_egress_credits') is not null as successor,
    to_regclass('service_providers') is not null as host;

-- name: statuses_left_out
-- Instances that the host billed, or tried to bill, within the last week and whose status now is not billable: how many by status, and
-- what they cost a month at the host's own rates. Compared until a run of ours has completed; later a difference is a
-- decision that was made, and the host's rows say nothing about it any more.
select coalesce(status::text, 'null') as status, count(*)::integer as instances,
    coalesce(sum(hourly_rate) * %(hours_per_month)s, 0)::numeric as monthly
from (
    select distinct on (vps_instance_id) vps_instance_id, hourly_rate
    from vps_billing_cycles
    where run_id is null and status in ('billed', 'failed') and hourly_rate <> 'NaN'
      and created_at > billing_clock() - interval '7 days'
    order by vps_instance_id, billing_period_end desc
) billed
join vps_instances on id = vps_instance_id
where not coalesce(billing_is_billable(status, lasting_status, %(statuses)s::text[]), false)
  and not exists (select from billing_runs where outcome = 'completed')
group by 1
order by instances desc, status;

-- name: host_billing_beside
-- How many hourly debits the host's scheduler wrote within the last two hours and since our first run, and how much it took. Ours
-- carry a key.
select count(*), coalesce(-sum(amount), 0)
from payment_transactions
where payment_method = 'wallet_debit' and coalesce(provider_transaction_id, '') not like 'billing-%%'
  and created_at between billing_clock() - interval '2 hours' and billing_clock()
  and created_at > (select min(started_at) from billing_runs)
  and description like 'VPS Hourly Billing - %%' and amount <> 'NaN';
