-- What years of billing leave beside the fleet of fleet.sql: :runs runs, a runway for every wallet, one instance in a hundred
-- quarantined, :hours charges for every instance, of which one in ten is past due for its last hour, a ledger entry for each
-- wallet and hour, and events of which ten thousand still wait.
insert into billing_runs (trigger, holder, fencing_token, as_of, host_clock, started_at, finished_at, outcome, hours_per_month,
    instances_billed, hours, amount, batches)
select 'daemon', 'bench', 1, at, at, at, at + interval '7 seconds', 'completed', 730, 1000000, 1000000, 12345.67, 400
from generate_series(1, %(runs)s) n, lateral (select %(now)s - (%(runs)s - n) * interval '1 hour' as at) x;
insert into billing_runways (organization_id, wallet_id, burn_per_hour, empties_at, past_due_since, updated_at)
select organization_id, id, 0.5, %(now)s + (n %% 2000 - 200) * interval '1 hour',
    case when n %% 2000 < 200 then %(now)s + (n %% 2000 - 200) * interval '1 hour' end, %(now)s
from (select *, row_number() over (order by id) as n from wallets) wallet;
insert into billing_quarantine (organization_id, instance_id, label, reason, detail, due_hours, first_seen_at, last_seen_at, run_id)
select organization_id, id, label, case when n %% 200 = 0 then 'no plan' else 'held' end, 'A sentence about it.', 5, %(now)s, %(now)s, 1
from (select *, row_number() over (order by id) as n from vps_instances) instance where n %% 100 = 0;
insert into billing_quarantine_counts (reason, instances) select reason, count(*) from billing_quarantine group by reason;
insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at, started_at, last_run_at, last_run_success)
values ('bench-1', 'running', %(now)s, %(now)s, %(now)s, true);
insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate,
    total_amount, status, run_id)
select billing_batch_uuid(lpad(to_hex(hour), 16, '0'), hashtextextended(instance.id::text, 0)), organization_id, instance.id,
    %(now)s - (hour + 1) * interval '1 hour', %(now)s - hour * interval '1 hour', 0.02, 0.02,
    case when hour = 0 and n %% 10 = 0 then 'failed' else 'billed' end, %(runs)s
from generate_series(0, %(hours)s - 1) hour,
    (select *, row_number() over (order by organization_id) as n from vps_instances) instance;
insert into payment_transactions (id, organization_id, amount, payment_method, payment_provider, provider_transaction_id, status,
    created_at)
select billing_batch_uuid(lpad(to_hex(hour), 16, '0'), hashtextextended(wallet.id::text, 1)), organization_id, -0.4, 'wallet_debit',
    'internal', 'billing-run-' || (%(runs)s - hour), 'completed', %(now)s - hour * interval '1 hour'
from generate_series(0, %(hours)s - 1) hour, wallets wallet;
insert into billing_events (kind, organization_id, occurred_at, next_attempt_at, delivered_at)
select 'past_due', organization_id, %(now)s - n * interval '1 minute', %(now)s, case when n > 500 then %(now)s end
from generate_series(1, 20) copy, (select organization_id, row_number() over (order by id) as n from wallets) wallet;
