-- Statements of a host application, tried before its tables are changed (host_statements.py). Each runs in a savepoint that is rolled back.
-- What fails before the columns of billing are added is the host's own affair; what fails only afterwards would be ours.

-- columns
-- The columns that billing adds to each table of the host. Their types do not matter here, apart from sealed_by.
select wanted.table_name, wanted.column_name
from (values
    ('wallets', 'billing_carry'), ('wallets', 'billing_opening'), ('wallets', 'past_due_since'),
    ('vps_instances', 'last_billed_at'), ('vps_instances', 'rated_from'), ('vps_instances', 'rated_until'),
    ('vps_instances', 'pending_segments'), ('vps_instances', 'sealed_by'), ('vps_instances', 'lasting_status'),
    ('vps_billing_cycles', 'run_id'), ('vps_billing_cycles', 'plan_id'), ('vps_billing_cycles', 'segment_id'),
    ('vps_billing_cycles', 'past_due_since'), ('vps_billing_cycles', 'past_due_batch')
) as wanted (table_name, column_name)
join pg_class on pg_class.oid = to_regclass(wanted.table_name) and relkind in ('r', 'p')
where not exists (select from pg_attribute
                  where attrelid = pg_class.oid and attname = wanted.column_name and not attisdropped);

-- triggers
-- The trigger of a table that calls a function of this name.
select tgname::text from pg_trigger join pg_proc on pg_proc.oid = tgfoid
where tgrelid = to_regclass($1) and not tgisinternal and proname = $2
order by tgname limit 1;

-- seed
-- A customer with a wallet, a plan and an instance, where the host has no instance yet.
with owner as (
    insert into users (email, password_hash, name) values ('trial@invalid', 'x', 'Trial') returning id
), organization as (
    insert into organizations (name, slug, owner_id) select 'Trial', 'billing-trial', id from owner returning id
), wallet as (
    insert into wallets (organization_id, balance) select id, 1 from organization
), plan as (
    insert into vps_plans (name, provider_plan_id, base_price, markup_price) values ('Trial', 'billing-trial', 1, 0) returning id
)
insert into vps_instances (organization_id, plan_id, provider_instance_id, label)
select organization.id, plan.id::text, '0', 'trial' from organization, plan;

-- vps_instances: an insert
insert into vps_instances
select (jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid(), 'label', 'trial'))).*
from vps_instances one limit 1;

-- vps_instances: an update of the status
update vps_instances set status = case status when 'running' then 'stopped' else 'running' end
where id = (select id from vps_instances limit 1);

-- vps_instances: an update of label and plan
update vps_instances set label = 'trial', plan_id = (select id::text from vps_plans limit 1)
where id = (select id from vps_instances limit 1);

-- vps_instances: an update of last_billed_at
update vps_instances set last_billed_at = now() where id = (select id from vps_instances limit 1);

-- vps_instances: a delete
delete from vps_instances where id = (select id from vps_instances limit 1);

-- wallets: an insert
insert into wallets
select (jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid()))).* from wallets one limit 1;

-- wallets: an update of the balance
update wallets set balance = balance + 0.01 where id = (select id from wallets limit 1);

-- wallets: a delete
delete from wallets where id = (select id from wallets limit 1);

-- vps_plans: an update of the price
update vps_plans set base_price = base_price + 0.01 where id = (select id from vps_plans limit 1);

-- vps_billing_cycles: an insert
insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end, hourly_rate, total_amount,
    status)
select id, organization_id, now() - interval '1 hour', now(), 0.01, 0.01, 'billed' from vps_instances limit 1;

-- vps_billing_cycles: an update of the status
update vps_billing_cycles set status = case status when 'failed' then 'billed' else 'failed' end
where id = (select id from vps_billing_cycles limit 1);

-- payment_transactions: an insert
insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status, description)
select organization_id, -0.01, currency, 'wallet_debit', 'internal', 'completed', 'VPS Hourly Billing - trial (1h)'
from wallets limit 1;
