-- A ContainerStacks database as its own installer leaves it, and as two years of hourly billing leave its rows: a ledger
-- of two decimals that dies with its instances, row triggers, six indexes, hours billed twice, money that does not add up.
-- Instants are fixed and in 2025, apart from the ones that are wrong on purpose.

-- The host asks for uuid-ossp. Where a server has no such extension, a function of that name stands in for it.
do $$
begin
    create extension if not exists "uuid-ossp";
exception when others then
    create or replace function uuid_generate_v4() returns uuid language sql as 'select gen_random_uuid()';
end
$$;

create function update_updated_at_column() returns trigger language plpgsql as $$
begin
    new.updated_at = now();
    return new;
end
$$;

create table users (
    id uuid primary key default uuid_generate_v4(), email varchar(255) unique not null,
    password_hash varchar(255) not null, name varchar(255) not null,
    role varchar(50) default 'user' check (role in ('admin', 'user')), phone varchar(50), timezone varchar(100),
    preferences jsonb default '{}', created_at timestamptz default now(), updated_at timestamptz default now());
create table organizations (
    id uuid primary key default uuid_generate_v4(), name varchar(255) not null, slug varchar(255) unique not null,
    owner_id uuid not null references users (id) on delete cascade, settings jsonb default '{}', website varchar(500),
    address text, tax_id varchar(100), created_at timestamptz default now(), updated_at timestamptz default now());
create table wallets (
    id uuid primary key default uuid_generate_v4(),
    organization_id uuid not null references organizations (id) on delete cascade,
    balance decimal(10, 2) default 0.00, currency varchar(3) default 'USD',
    created_at timestamptz default now(), updated_at timestamptz default now());
create table vps_plans (
    id uuid primary key default uuid_generate_v4(), name varchar(255) not null, provider_plan_id varchar(255) not null,
    provider_id uuid, base_price decimal(10, 2), markup_price decimal(10, 2) default 0,
    specifications jsonb not null default '{}', active boolean not null default true,
    created_at timestamptz default now(), updated_at timestamptz default now());
create table vps_instances (
    id uuid primary key default uuid_generate_v4(),
    organization_id uuid not null references organizations (id) on delete cascade,
    plan_id varchar(255) not null, provider_instance_id varchar(255) not null, label varchar(255) not null,
    status varchar(50) default 'provisioning', ip_address inet, configuration jsonb default '{}',
    created_at timestamptz default now(), updated_at timestamptz default now());
create table payment_transactions (
    id uuid primary key default uuid_generate_v4(),
    organization_id uuid not null references organizations (id) on delete cascade,
    amount decimal(10, 2) not null, currency varchar(3) default 'USD', payment_method varchar(50) not null,
    payment_provider varchar(50) not null, provider_transaction_id varchar(255),
    status varchar(50) default 'pending' check (status in ('pending', 'completed', 'failed', 'refunded')),
    description text, metadata jsonb default '{}', created_at timestamptz default now(), updated_at timestamptz default now());
create table vps_billing_cycles (
    id uuid primary key default uuid_generate_v4(),
    vps_instance_id uuid not null references vps_instances (id) on delete cascade,
    organization_id uuid not null references organizations (id) on delete cascade,
    billing_period_start timestamptz not null, billing_period_end timestamptz not null,
    hourly_rate decimal(10, 4) not null, total_amount decimal(10, 2) not null,
    status varchar(50) default 'pending' check (status in ('pending', 'billed', 'failed', 'refunded')),
    payment_transaction_id uuid references payment_transactions (id), metadata jsonb default '{}',
    created_at timestamptz default now(), updated_at timestamptz default now());
alter table vps_instances add column last_billed_at timestamptz;

create index idx_organizations_owner_id on organizations (owner_id);
create index idx_wallets_org_id on wallets (organization_id);
create index idx_vps_instances_org_id on vps_instances (organization_id);
create index idx_payment_transactions_org_id on payment_transactions (organization_id);
create index idx_vps_billing_cycles_vps_id on vps_billing_cycles (vps_instance_id);
create index idx_vps_billing_cycles_org_id on vps_billing_cycles (organization_id);
create index idx_vps_billing_cycles_period on vps_billing_cycles (billing_period_start, billing_period_end);
create index idx_vps_billing_cycles_status on vps_billing_cycles (status);
create index idx_vps_billing_cycles_created_at on vps_billing_cycles (created_at);
create index idx_vps_instances_last_billed_at on vps_instances (last_billed_at);

create trigger update_users_updated_at before update on users for each row execute function update_updated_at_column();
create trigger update_organizations_updated_at before update on organizations for each row execute function update_updated_at_column();
create trigger update_wallets_updated_at before update on wallets for each row execute function update_updated_at_column();
create trigger update_vps_plans_updated_at before update on vps_plans for each row execute function update_updated_at_column();
create trigger update_vps_instances_updated_at before update on vps_instances for each row execute function update_updated_at_column();
create trigger update_payment_transactions_updated_at before update on payment_transactions for each row execute function update_updated_at_column();
create trigger update_vps_billing_cycles_updated_at before update on vps_billing_cycles for each row execute function update_updated_at_column();

-- A view of the operator's that reads the ledger, but none of its amounts.
create view cycles_by_status as select status, count(*) as cycles from vps_billing_cycles group by status;

-- Written so that a test can be read without this file: a000… is Alpha, its things begin with a; and so on.
insert into users (id, email, password_hash, name)
values ('00000000-0000-4000-8000-000000000001', 'owner@example.org', 'x', 'Owner');
insert into organizations (id, name, slug, owner_id)
select id::uuid, name, lower(name), '00000000-0000-4000-8000-000000000001'
  from (values ('a0000000-0000-4000-8000-000000000000', 'Alpha'), ('b0000000-0000-4000-8000-000000000000', 'Beta'),
               ('c0000000-0000-4000-8000-000000000000', 'Gamma'), ('d0000000-0000-4000-8000-000000000000', 'Delta'))
       as o (id, name);

insert into vps_plans (id, name, provider_plan_id, base_price, markup_price)
values ('10000000-0000-4000-8000-000000000001', 'Small', 'g6-nanode-1', 5.00, 1.00),
       ('10000000-0000-4000-8000-000000000002', 'Large', 'g6-standard-1', 10.00, 2.00),
       ('10000000-0000-4000-8000-000000000003', 'Large, resold', 'g6-standard-1', 10.00, 9.00);

-- Alpha lost six cents to a lost update. Beta has two wallets of one currency and a third of another. Delta has none.
insert into wallets (id, organization_id, balance, currency, created_at)
values ('a0000000-0000-4000-8000-00000000000a', 'a0000000-0000-4000-8000-000000000000', 99.94, 'USD', '2025-01-01 00:00Z'),
       ('b0000000-0000-4000-8000-00000000000b', 'b0000000-0000-4000-8000-000000000000', 10.00, 'USD', '2025-01-02 00:00Z'),
       ('b0000000-0000-4000-8000-00000000000a', 'b0000000-0000-4000-8000-000000000000', 5.00, 'USD', '2025-01-03 00:00Z'),
       ('b0000000-0000-4000-8000-00000000000e', 'b0000000-0000-4000-8000-000000000000', 7.00, 'EUR', '2025-01-04 00:00Z'),
       ('c0000000-0000-4000-8000-00000000000c', 'c0000000-0000-4000-8000-000000000000', 0.00, 'USD', '2025-01-01 00:00Z');
insert into payment_transactions (id, organization_id, amount, currency, payment_method, payment_provider, status, created_at)
values ('a0000000-0000-4000-8000-0000000000e1', 'a0000000-0000-4000-8000-000000000000', 100.04, 'USD', 'paypal', 'paypal', 'completed', '2025-01-01 00:00Z'),
       ('a0000000-0000-4000-8000-0000000000e2', 'a0000000-0000-4000-8000-000000000000', -0.04, 'USD', 'wallet_debit', 'internal', 'completed', '2025-03-01 00:00Z'),
       ('a0000000-0000-4000-8000-0000000000e3', 'a0000000-0000-4000-8000-000000000000', 50.00, 'USD', 'paypal', 'paypal', 'pending', '2025-03-01 00:00Z'),
       ('b0000000-0000-4000-8000-0000000000e1', 'b0000000-0000-4000-8000-000000000000', 10.00, 'USD', 'paypal', 'paypal', 'completed', '2025-01-02 00:00Z'),
       ('b0000000-0000-4000-8000-0000000000e2', 'b0000000-0000-4000-8000-000000000000', 3.00, 'EUR', 'paypal', 'paypal', 'completed', '2025-01-04 00:00Z');

-- What each instance is, in the order of the last digit: paid beyond its watermark; watermark beyond what was paid;
-- never billed; marked as billed in the year 2999; billed row in the future; born at infinity; plan shared by two
-- prices; plan nobody has; no wallet.
insert into vps_instances (id, organization_id, plan_id, provider_instance_id, label, status, created_at, last_billed_at, updated_at)
select id::uuid, organization_id::uuid, plan_id, label, label, 'running', created_at::timestamptz, last_billed_at::timestamptz,
       '2025-02-01 00:00Z'
  from (values
    ('a0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000000', '10000000-0000-4000-8000-000000000001', 'paid-ahead', '2025-03-01 00:00Z', '2025-03-01 02:00Z'),
    ('a0000000-0000-4000-8000-000000000002', 'a0000000-0000-4000-8000-000000000000', 'g6-nanode-1', 'marked-ahead', '2025-03-01 00:00Z', '2025-03-01 09:00Z'),
    ('a0000000-0000-4000-8000-000000000003', 'a0000000-0000-4000-8000-000000000000', 'g6-nanode-1', 'never-billed', '2025-03-01 05:00Z', null),
    ('b0000000-0000-4000-8000-000000000004', 'b0000000-0000-4000-8000-000000000000', 'g6-nanode-1', 'far-future', '2025-03-01 00:00Z', '2999-01-01 00:00Z'),
    ('b0000000-0000-4000-8000-000000000005', 'b0000000-0000-4000-8000-000000000000', 'g6-nanode-1', 'paid-in-future', '2025-03-01 00:00Z', '2025-03-01 03:00Z'),
    ('b0000000-0000-4000-8000-000000000006', 'b0000000-0000-4000-8000-000000000000', 'g6-nanode-1', 'timeless', 'infinity', null),
    ('c0000000-0000-4000-8000-000000000007', 'c0000000-0000-4000-8000-000000000000', 'g6-standard-1', 'two-prices', '2025-03-01 00:00Z', '2025-03-01 00:00Z'),
    ('c0000000-0000-4000-8000-000000000008', 'c0000000-0000-4000-8000-000000000000', 'no-such-plan', 'no-plan', '2025-03-01 00:00Z', '2025-03-01 00:00Z'),
    ('d0000000-0000-4000-8000-000000000009', 'd0000000-0000-4000-8000-000000000000', 'g6-nanode-1', 'no-wallet', '2025-03-01 00:00Z', '2025-03-01 00:00Z')
  ) as i (id, organization_id, plan_id, label, created_at, last_billed_at);

-- The first hour of paid-ahead stands there twice, its third hour overlaps the second, and two-prices could not pay.
insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end, hourly_rate,
                                total_amount, status, payment_transaction_id, created_at)
select i.id, i.organization_id, c.period_start::timestamptz, c.period_end::timestamptz, 0.0082, 0.01, c.status,
       case when c.label = 'paid-ahead' then 'a0000000-0000-4000-8000-0000000000e2'::uuid end, '2025-03-01 12:00Z'
  from (values
    ('paid-ahead', '2025-03-01 00:00Z', '2025-03-01 01:00Z', 'billed'),
    ('paid-ahead', '2025-03-01 00:00Z', '2025-03-01 01:00Z', 'billed'),
    ('paid-ahead', '2025-03-01 01:00Z', '2025-03-01 02:00Z', 'billed'),
    ('paid-ahead', '2025-03-01 01:30Z', '2025-03-01 03:00Z', 'billed'),
    ('paid-ahead', '2025-03-01 03:00Z', '2025-03-01 08:00Z', 'failed'),
    ('marked-ahead', '2025-03-01 00:00Z', '2025-03-01 04:00Z', 'billed'),
    ('paid-in-future', '2025-03-01 03:00Z', '2999-01-01 00:00Z', 'billed'),
    ('two-prices', '2025-03-01 00:00Z', '2025-03-01 01:00Z', 'failed'),
    ('two-prices', '2025-03-01 00:00Z', '2025-03-01 02:00Z', 'failed')
  ) as c (label, period_start, period_end, status)
  join vps_instances i on i.label = c.label;
