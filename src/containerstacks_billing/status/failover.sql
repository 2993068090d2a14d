-- What built-in billing has to know before it bills. Asked once a minute, so every part is one indexed row.

-- name: newest_heartbeat
-- The newest heartbeat that is not ahead of the clock, and the newest one that is, as text since it may be infinite.
select billing_clock() as now,
    (select max(heartbeat_at) from billing_daemon_status
     where heartbeat_at between '2000-01-01' and billing_clock()) as heartbeat_at,
    (select max(heartbeat_at)::text from billing_daemon_status where heartbeat_at > billing_clock()) as ahead;

-- name: last_built_in_run
-- The last run of built-in billing over the whole fleet, by whichever replica: when it began, and how it ended.
select started_at, outcome
from billing_runs
where trigger = 'built-in' and organization_id is null
order by id desc
limit 1;

-- name: newest_debit_of_host
-- When the host application last debited a wallet by itself: its own built-in billing is alive then.
select max(created_at) from payment_transactions
where payment_method = 'wallet_debit' and coalesce(provider_transaction_id, '') not like 'billing-%%'
  and created_at <= billing_clock();
