-- A fleet to try the product on: five customers of a small hoster, a few hours after the last bill.
--
-- The rows are what the host application would have written, and the triggers make of them what they always do. Then
-- what they dated by the clock is dated back, so that everything began some hours ago and one instance was resized, one
-- stopped and one price raised since.

-- part: demo_customer
-- Who they are, and what is left on the wallet.
customer (slug, name, owner, balance) as (
    values ('harbour-bakery', 'Harbour Bakery', 'Ines Moreau', 25.00),
        ('nordlicht-media', 'Nordlicht Media', 'Jonas Lindqvist', 180.00),
        ('cobalt-data', 'Cobalt Data', 'Priya Raman', 400.00),
        ('tidewater-games', 'Tidewater Games', 'Marcus Bell', 0.80),
        ('maple-clinic', 'Maple Clinic', 'Hannah Osei', 60.00)
)

-- name: demo_lock
-- Let only one process make the fleet.
select pg_advisory_xact_lock(hashtext('containerstacks-billing demo'));

-- name: database_is_new
-- Whether this database is unused.
select not exists (select from organizations) and not exists (select from vps_plans) and not exists (select from billing_runs);

-- name: demo_plans
-- Four plans; prices per month.
insert into vps_plans (name, provider_plan_id, base_price, markup_price, created_at)
values ('Nano 1 GB', 'nano-1gb', 5.00, 1.00, %(now)s - interval '90 days'),
    ('Standard 4 GB', 'standard-4gb', 20.00, 4.00, %(now)s - interval '90 days'),
    ('Performance 16 GB', 'performance-16gb', 80.00, 16.00, %(now)s - interval '90 days'),
    ('Storage 2 TB', 'storage-2tb', 36.00, 0.00, %(now)s - interval '90 days');

-- name: demo_raise_price
-- One plan becomes more expensive; the trigger dates that by the clock.
update vps_plans set base_price = 44.00 where provider_plan_id = 'storage-2tb';

-- name: demo_end_old_price
-- It happened two and a half hours ago: the old version ended then.
update plan_price_versions set valid_to = %(now)s - interval '150 minutes'
where valid_from = '-infinity' and valid_to <> 'infinity';

-- name: demo_begin_new_price
-- And the new one began.
update plan_price_versions set valid_from = %(now)s - interval '150 minutes' where valid_from <> '-infinity';

-- name: demo_owners
-- The users; no password fits any of them.
insert into users (email, password_hash, name, created_at)
with
-- include: demo_customer
select slug || '@example.com', '!', owner, %(now)s - interval '90 days' from customer;

-- name: demo_organizations
-- The organizations.
insert into organizations (name, slug, owner_id, created_at)
with
-- include: demo_customer
select customer.name, slug, users.id, %(now)s - interval '90 days'
from customer join users on email = slug || '@example.com';

-- name: demo_top_ups
-- What they paid in.
insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status, description,
    created_at)
with
-- include: demo_customer
select organizations.id, balance, 'USD', 'card', 'demo', 'completed', 'Top-up', %(now)s - interval '10 days'
from customer join organizations using (slug);

-- name: demo_wallets
-- Their wallets, which hold exactly that.
insert into wallets (organization_id, balance, currency, created_at)
with
-- include: demo_customer
select organizations.id, balance, 'USD', %(now)s - interval '90 days'
from customer join organizations using (slug);

-- name: demo_instances
-- What they run; the plan of one does not exist any more.
insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)
select organizations.id, coalesce(vps_plans.id::text, plan), 'demo-' || number, label, 'running',
    %(now)s - hours * interval '1 hour'
from (values
    (1, 'harbour-bakery', 'nano-1gb', 'shop', 6.2), (2, 'harbour-bakery', 'nano-1gb', 'mail', 6.2),
    (3, 'nordlicht-media', 'standard-4gb', 'web-1', 5.4), (4, 'nordlicht-media', 'standard-4gb', 'web-2', 5.4),
    (5, 'nordlicht-media', 'performance-16gb', 'render', 3.7),
    (6, 'cobalt-data', 'storage-2tb', 'lake-1', 5.1), (7, 'cobalt-data', 'storage-2tb', 'lake-2', 5.1),
    (8, 'cobalt-data', 'standard-4gb', 'warehouse', 6.5),
    (9, 'tidewater-games', 'performance-16gb', 'match-eu', 4.3), (10, 'tidewater-games', 'performance-16gb', 'match-us', 4.3),
    (11, 'maple-clinic', 'standard-4gb', 'records', 5.8), (12, 'maple-clinic', 'nano-1gb', 'staging', 5.8),
    (13, 'maple-clinic', 'retired-512mb', 'fax-gateway', 5.8)
) instance (number, slug, plan, label, hours)
join organizations using (slug)
left join vps_plans on provider_plan_id = plan;

-- name: demo_resize
-- One customer needed more; the trigger closes the segment on the smaller plan.
update vps_instances set plan_id = (select id::text from vps_plans where provider_plan_id = 'performance-16gb')
where label = 'warehouse';

-- name: demo_stop
-- One instance was switched off.
update vps_instances set status = 'stopped' where label = 'staging';

-- name: demo_speak_as_billing
-- What follows is written as billing writes it; nobody else may change what an instance has kept.
select set_config('containerstacks_billing.advancing', 'on', true);

-- name: demo_date_changes
-- The triggers dated both by the clock; they happened an hour and a half and two hours ago, and the watermarks stand there.
update vps_instances
set pending_segments[1].ended_at = changed_at, pending_segments[1].closed_at = changed_at, last_billed_at = changed_at,
    rated_until = changed_at
from (values ('plan', %(now)s - interval '90 minutes'), ('status', %(now)s - interval '2 hours')) change (why, changed_at)
where (pending_segments[1]).reason = why;

-- name: books
-- Per organization: what a run billed and debited, and how its wallet stands.
select name, instances, coalesce(hours, 0) as hours, coalesce(debited, 0) as debited, balance, billing_carry, owed
from organizations
join lateral (
    select balance, billing_carry from wallets where organization_id = organizations.id order by created_at, id limit 1
) wallet on true,
lateral (select count(*) as instances from vps_instances where organization_id = organizations.id) fleet,
lateral (
    select sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours
    from vps_billing_cycles
    where organization_id = organizations.id and run_id = %(run_id)s and status = 'billed'
) billed,
lateral (
    select -sum(amount) as debited from payment_transactions
    where organization_id = organizations.id and provider_transaction_id = 'billing-run-' || %(run_id)s::text
) entry,
lateral (
    select coalesce(sum(total_amount), 0) as owed from vps_billing_cycles
    where organization_id = organizations.id and status = 'failed' and run_id is not null
) past_due
order by name
limit 100;
