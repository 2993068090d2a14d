-- A fleet of :instances due instances over :wallets wallets and 20 plans, created over time by everybody, so that the
-- instances of one organization lie scattered over the table, as they do at a hoster's.
insert into users (id, email, password_hash, name) values (md5('owner')::uuid, 'owner@example.org', 'x', 'Owner');
insert into organizations (id, name, slug, owner_id)
select md5('organization' || n)::uuid, 'Organization ' || n, 'organization-' || n, md5('owner')::uuid
from generate_series(1, %(wallets)s) n;
insert into wallets (organization_id, balance, created_at)
select id, 1000000, %(start)s from organizations;
insert into vps_plans (id, name, provider_plan_id, base_price, markup_price, created_at)
select md5('plan' || n)::uuid, 'Plan ' || n, 'provider-plan-' || n, n, 0.5 * n, %(start)s from generate_series(1, 20) n;
insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)
select md5('organization' || (n %% %(wallets)s + 1))::uuid, md5('plan' || (n %% 20 + 1))::uuid::text, 'provider-' || n, 'vps-' || n,
    'running', %(start)s - (n::bigint * 7919 %% 3600) * interval '1 second'
from generate_series(1, %(instances)s) n;
