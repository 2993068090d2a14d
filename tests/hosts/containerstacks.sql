-- The tables of ContainerStacks as its fifteen migrations leave them: what billing touches, and what refers to that.
--
-- Written from the facts of its public schema (gvps-cloud/skypanelv2 at 7e6b846): names, types, defaults, constraints,
-- indexes and triggers. Tables that neither hold money nor refer to an instance or organization are left out. Its ids come
-- from an extension (uuid-ossp) that the embedded server lacks; gen_random_uuid() draws the same kind.

create function update_updated_at_column() returns trigger language plpgsql as
$$ begin new.updated_at := now(); return new; end $$;

create table users (
    id uuid primary key default gen_random_uuid(),
    email varchar(255) not null unique,
    password_hash varchar(255) not null,
    name varchar(255) not null,
    role varchar(50) default 'user' constraint users_role_check check (role in ('admin', 'user')),
    phone varchar(50),
    timezone varchar(100),
    preferences jsonb default '{}',
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    reset_token varchar(255),
    reset_expires timestamp
);
create index idx_users_email on users (email);

create table organizations (
    id uuid primary key default gen_random_uuid(),
    name varchar(255) not null,
    slug varchar(255) not null unique,
    owner_id uuid not null references users on delete cascade,
    settings jsonb default '{}',
    website varchar(500),
    address text,
    tax_id varchar(100),
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index idx_organizations_slug on organizations (slug);
create index idx_organizations_owner_id on organizations (owner_id);

create table organization_members (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    user_id uuid not null references users on delete cascade,
    role varchar(50) default 'member'
        constraint organization_members_role_check check (role in ('owner', 'admin', 'member')),
    created_at timestamptz default now(),
    unique (organization_id, user_id)
);

-- Not unique: an organization may have several wallets, and the host writes all of them with one balance.
create table wallets (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    balance numeric(10, 2) default 0.00,
    currency varchar(3) default 'USD',
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index idx_wallets_org_id on wallets (organization_id);

create table service_providers (
    id uuid primary key default gen_random_uuid(),
    name varchar(255) not null,
    type varchar(50) not null check (type in ('linode', 'digitalocean', 'aws', 'gcp')),
    api_key_encrypted text not null,
    configuration jsonb not null default '{}',
    active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- Prices may be null, unlike in a schema that 001 makes.
create table vps_plans (
    id uuid primary key default gen_random_uuid(),
    name varchar(255) not null,
    provider_plan_id varchar(255) not null,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    provider_id uuid references service_providers on delete set null,
    base_price numeric(10, 2),
    markup_price numeric(10, 2) default 0,
    specifications jsonb not null default '{}',
    active boolean not null default true
);
create index idx_vps_plans_provider_id on vps_plans (provider_id);
create index idx_vps_plans_active on vps_plans (active);

create table vps_instances (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    plan_id varchar(255) not null,
    provider_instance_id varchar(255) not null,
    label varchar(255) not null,
    status varchar(50) default 'provisioning',
    ip_address inet,
    configuration jsonb default '{}',
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    last_billed_at timestamptz
);
create index idx_vps_instances_org_id on vps_instances (organization_id);
create index idx_vps_instances_last_billed_at on vps_instances (last_billed_at);

create table payment_transactions (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    amount numeric(10, 2) not null,
    currency varchar(3) default 'USD',
    payment_method varchar(50) not null,
    payment_provider varchar(50) not null,
    provider_transaction_id varchar(255),
    status varchar(50) default 'pending' constraint payment_transactions_status_check
        check (status in ('pending', 'completed', 'failed', 'refunded')),
    description text,
    metadata jsonb default '{}',
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index idx_payment_transactions_org_id on payment_transactions (organization_id);

create table vps_billing_cycles (
    id uuid primary key default gen_random_uuid(),
    vps_instance_id uuid not null references vps_instances on delete cascade,
    organization_id uuid not null references organizations on delete cascade,
    billing_period_start timestamptz not null,
    billing_period_end timestamptz not null,
    hourly_rate numeric(10, 4) not null,
    total_amount numeric(10, 2) not null,
    status varchar(50) default 'pending' constraint vps_billing_cycles_status_check
        check (status in ('pending', 'billed', 'failed', 'refunded')),
    payment_transaction_id uuid references payment_transactions,
    metadata jsonb default '{}',
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index idx_vps_billing_cycles_vps_id on vps_billing_cycles (vps_instance_id);
create index idx_vps_billing_cycles_org_id on vps_billing_cycles (organization_id);
create index idx_vps_billing_cycles_period on vps_billing_cycles (billing_period_start, billing_period_end);
create index idx_vps_billing_cycles_status on vps_billing_cycles (status);
create index idx_vps_billing_cycles_created_at on vps_billing_cycles (created_at);

-- Its own program's heartbeat, which its built-in scheduler reads.
create table billing_daemon_status (
    id serial primary key,
    daemon_instance_id varchar(255) not null unique,
    status varchar(50) not null,
    last_run_at timestamptz,
    last_run_success boolean,
    instances_billed integer default 0,
    total_amount numeric(10, 2) default 0,
    total_hours numeric(10, 2) default 0,
    error_message text,
    started_at timestamptz,
    heartbeat_at timestamptz,
    metadata jsonb default '{}',
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index idx_billing_daemon_status_heartbeat on billing_daemon_status (heartbeat_at);
create index idx_billing_daemon_status_instance on billing_daemon_status (daemon_instance_id);

-- The table of its containers, which later versions removed: it tells this host from its successor.
create table containers (
    id uuid primary key default gen_random_uuid(),
    name varchar(255) not null,
    image varchar(500) not null,
    organization_id uuid not null references organizations on delete cascade,
    config jsonb default '{}',
    status varchar(50) default 'stopped',
    created_by uuid references users on delete set null,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);

create table activity_logs (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    organization_id uuid,
    event_type varchar(100) not null,
    entity_type varchar(100) not null,
    entity_id varchar(255),
    message text,
    status varchar(50) default 'info' check (status in ('success', 'warning', 'error', 'info')),
    metadata jsonb default '{}',
    created_at timestamptz default now()
);

do $$
declare
    stamped text;
begin
    foreach stamped in array array['users', 'organizations', 'wallets', 'vps_plans', 'vps_instances',
        'payment_transactions', 'vps_billing_cycles', 'service_providers', 'containers']
    loop
        execute format('create trigger update_%1$s_updated_at before update on %1$s for each row '
            'execute function update_updated_at_column()', stamped);
    end loop;
end $$;
