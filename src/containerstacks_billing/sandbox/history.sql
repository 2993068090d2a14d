-- Customers of a month ago for the demo, as the host application would have written them, and what happened to them since.

-- part: older_customer
-- Who they are, and what they paid in at first.
older_customer (slug, name, owner, balance) as (
    values ('alder-school', 'Alder School', 'Tomas Berg', 120.00),
        ('quayside-studio', 'Quayside Studio', 'Leila Haddad', 260.00),
        ('sunrise-radio', 'Sunrise Radio', 'Emeka Obi', 9.50)
)

-- name: history_organizations
-- The owners and their organizations.
with
-- include: older_customer
,
owner as (
    insert into users (email, password_hash, name, created_at)
    select slug || '@example.com', '!', owner, %(at)s - interval '40 days' from older_customer
    returning id, email
)
insert into organizations (name, slug, owner_id, created_at)
select older_customer.name, slug, owner.id, %(at)s - interval '40 days'
from older_customer join owner on email = slug || '@example.com';

-- name: history_top_ups
-- What they paid in a month ago.
insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status, description,
    created_at)
with
-- include: older_customer
select organizations.id, balance, 'USD', 'card', 'demo', 'completed', 'Top-up', %(at)s - interval '31 days'
from older_customer join organizations using (slug);

-- name: history_wallets
-- Their wallets, which hold exactly that.
insert into wallets (organization_id, balance, currency, created_at)
with
-- include: older_customer
select organizations.id, balance, 'USD', %(at)s - interval '40 days'
from older_customer join organizations using (slug);

-- name: history_instances
-- What they run; some of it began later in the month.
insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)
select organizations.id, vps_plans.id::text, 'history-' || number, label, 'running', %(at)s - hours * interval '1 hour'
from (values
    (1, 'alder-school', 'nano-1gb', 'timetable', 721), (2, 'alder-school', 'nano-1gb', 'library', 500),
    (3, 'quayside-studio', 'standard-4gb', 'site', 721), (4, 'quayside-studio', 'performance-16gb', 'encoder', 410),
    (5, 'quayside-studio', 'standard-4gb', 'preview', 190), (6, 'sunrise-radio', 'standard-4gb', 'stream', 721)
) instance (number, slug, plan, label, hours)
join organizations using (slug)
join vps_plans on provider_plan_id = plan;

-- name: history_raise_price
-- The smallest plan became more expensive; the trigger dates that by the clock.
update vps_plans set base_price = 6.00 where provider_plan_id = 'nano-1gb';

-- name: history_end_old_price
-- It happened twelve days ago: the old version ended then.
update plan_price_versions set valid_to = %(at)s - interval '12 days'
where plan_id = (select id from vps_plans where provider_plan_id = 'nano-1gb') and valid_from = '-infinity';

-- name: history_begin_new_price
-- And the new one began.
update plan_price_versions set valid_from = %(at)s - interval '12 days'
where plan_id = (select id from vps_plans where provider_plan_id = 'nano-1gb') and valid_from <> '-infinity';

-- name: history_second_top_up
-- The customer who owed paid in again, too little for what follows.
insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status, description,
    created_at)
select id, 14.00, 'USD', 'card', 'demo', 'completed', 'Top-up', %(at)s - interval '10 minutes'
from organizations where slug = 'sunrise-radio';

-- name: history_second_balance
-- The wallet holds it.
update wallets set balance = balance + 14.00, updated_at = %(at)s - interval '10 minutes'
where organization_id = (select id from organizations where slug = 'sunrise-radio');

-- name: history_date_runs
-- The runs began when they treated as now; the row of a run is dated by the clock.
update billing_runs set finished_at = as_of + (finished_at - started_at), started_at = as_of where as_of <= %(at)s;
