-- The fleet of a drill. A third of the wallets is empty, a third holds little, a third pays everything. Half of the customers
-- have one cheap instance, which comes to less than a cent an hour; the others share the rest, each tenth of it stopped.
-- Instances have up to five hours due.

insert into users (email, password_hash, name) values ('drill@example.org', 'x', 'Drill');

insert into organizations (name, slug, owner_id)
select 'Organization ' || number, 'organization-' || number, (select id from users)
from generate_series(1, %(organizations)s) as number;

insert into wallets (organization_id, balance, created_at)
select id, case substr(slug, 14)::integer %% 3 when 0 then 0.05 when 1 then 2.00 else 5000.00 end, billing_clock()
from organizations;

insert into vps_plans (name, provider_plan_id, base_price, markup_price, created_at)
select 'Plan ' || number, 'plan-' || number, 3 + number, number %% 2, billing_clock() from generate_series(1, 3) as number;

insert into vps_plans (name, provider_plan_id, base_price, markup_price, created_at)
values ('Plan 4', 'plan-4', 0.50, 0, billing_clock());

insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)
select organizations.id, case when number <= %(organizations)s then 'plan-4' else 'plan-' || 1 + number %% 3 end,
    'provider-' || number, 'vps-' || number, case when number %% 10 = 0 then 'stopped' else 'running' end,
    billing_clock() - (number %% 300) * interval '1 minute'
from generate_series(1, %(instances)s) as number
join organizations on slug = 'organization-' || case when number <= %(organizations)s then number
    else 1 + number %% (%(organizations)s / 2) end;
