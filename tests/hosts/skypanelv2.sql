-- The tables of skypanelv2, the successor of ContainerStacks, as its 77 migrations leave them: what billing touches, what
-- else moves money, and what refers to either.
--
-- Written from the facts of its public schema (gvps-cloud/skypanelv2 at 235b481): names, types, defaults, constraints,
-- indexes, triggers and row level security. Ids are drawn by gen_random_uuid() where the host uses an extension.
-- Its policies differ by command, not by table, so the repeated ones are made in a loop at the end.

create function update_updated_at_column() returns trigger language plpgsql as
$$ begin new.updated_at := now(); return new; end $$;

create table schema_migrations (
    id serial primary key,
    filename varchar(255) not null unique,
    checksum varchar(64) not null,
    applied_at timestamptz default now(),
    execution_time_ms integer
);

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
    updated_at timestamptz default now()
);

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
    updated_at timestamptz default now(),
    show_on_homepage boolean not null default false,
    enhance_customer_id varchar(255),
    enhance_member_id varchar(255)
);
create index idx_organizations_owner_id on organizations (owner_id);

create table organization_members (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    user_id uuid not null references users on delete cascade,
    role varchar(50) default 'member',
    created_at timestamptz default now(),
    unique (organization_id, user_id)
);

alter table users add column active_organization_id uuid references organizations on delete set null;

create table wallets (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    balance numeric(12, 4) default 0.0000,
    currency varchar(3) default 'USD',
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index idx_wallets_org_id on wallets (organization_id);

create table service_providers (
    id uuid primary key default gen_random_uuid(),
    name varchar(255) not null,
    type varchar(50) not null,
    api_key_encrypted text not null,
    configuration jsonb not null default '{}',
    active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

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
    active boolean not null default true,
    backup_price_monthly numeric(10, 2) default 0,
    backup_price_hourly numeric(10, 6) default 0,
    daily_backups_enabled boolean default false,
    weekly_backups_enabled boolean default true,
    backup_upcharge_monthly numeric(10, 2) default 0,
    backup_upcharge_hourly numeric(10, 6) default 0,
    type_class varchar(50) default 'standard'
);
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
    last_billed_at timestamptz,
    provider_type varchar(50),
    provider_id uuid references service_providers on delete set null,
    backup_frequency varchar(20) default 'weekly' constraint vps_instances_backup_frequency_check
        check (backup_frequency in ('daily', 'weekly', 'none')),
    notes text,
    created_by uuid references users on delete set null,
    os_disk_id integer
);
create index idx_vps_instances_org_id on vps_instances (organization_id);
create index idx_vps_instances_last_billed_at on vps_instances (last_billed_at);
create index idx_vps_instances_created_by on vps_instances (created_by);
create index idx_vps_instances_provider_id on vps_instances (provider_id);
create index idx_vps_instances_notes_search on vps_instances using gin (to_tsvector('english'::regconfig, coalesce(notes, '')));

-- A transaction is never pending here: its default is failed.
create table payment_transactions (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    amount numeric(12, 4) not null,
    currency varchar(3) default 'USD',
    payment_method varchar(50) not null,
    payment_provider varchar(50) not null,
    provider_transaction_id varchar(255),
    status varchar(50) default 'failed' constraint payment_transactions_status_check
        check (status in ('completed', 'failed', 'cancelled', 'refunded')),
    description text,
    metadata jsonb default '{}',
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    provider_capture_id varchar(255)
);
create index idx_payment_transactions_org_id on payment_transactions (organization_id);
create index idx_payment_transactions_capture_id on payment_transactions (provider_capture_id);

create table vps_billing_cycles (
    id uuid primary key default gen_random_uuid(),
    vps_instance_id uuid not null references vps_instances on delete cascade,
    organization_id uuid not null references organizations on delete cascade,
    billing_period_start timestamptz not null,
    billing_period_end timestamptz not null,
    hourly_rate numeric(10, 4) not null,
    total_amount numeric(12, 4) not null,
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

create table billing_invoices (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    invoice_number text not null,
    html_content text not null,
    data jsonb not null default '{}',
    total_amount numeric(12, 4) not null default 0.0000,
    currency text not null default 'USD',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- Web hosting: a wallet of its own per organization, whose movements stand in payment_transactions beside the others.
create table hosting_wallets (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null unique references organizations on delete cascade,
    balance numeric(12, 6) not null default 0,
    currency varchar(3) not null default 'USD',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table hosting_plans (
    id uuid primary key default gen_random_uuid(),
    enhance_plan_id varchar(255) unique,
    name varchar(255) not null,
    description text,
    features jsonb default '{}',
    service_type varchar(20) not null check (service_type in ('web', 'email', 'wordpress', 'node')),
    price_monthly numeric(10, 2),
    is_active boolean default true,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);

create table hosting_subscriptions (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    created_by uuid references users on delete set null,
    plan_id uuid references hosting_plans on delete set null,
    domain varchar(255),
    status varchar(20) not null default 'provisioning'
        check (status in ('provisioning', 'active', 'suspended', 'cancelled', 'error')),
    settings jsonb default '{}',
    next_billing_at timestamptz,
    last_billed_at timestamptz,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    cancelled_at timestamptz,
    last_warning_sent_at timestamptz
);

create type hosting_billing_cycle_status as enum ('pending', 'paid', 'failed', 'refunded', 'cancelled');
create table hosting_billing_cycles (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    hosting_subscription_id uuid not null references hosting_subscriptions on delete cascade,
    plan_id uuid references hosting_plans on delete set null,
    plan_name text not null,
    domain text not null,
    cycle_type varchar(20) not null default 'renewal' check (cycle_type in ('initial', 'renewal', 'manual')),
    period_start timestamptz not null,
    period_end timestamptz not null,
    amount numeric(12, 6) not null check (amount >= 0),
    currency varchar(10) not null default 'USD',
    status hosting_billing_cycle_status not null default 'pending',
    failure_reason text,
    payment_transaction_id uuid references payment_transactions on delete set null,
    invoice_id uuid references billing_invoices on delete set null,
    refunded_amount numeric(12, 6) not null default 0,
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint hosting_billing_cycles_period_check check (period_end > period_start)
);

-- Refers to charges: an instance's cycles may not vanish under it without a word.
create type refund_status as enum ('pending', 'processing', 'completed', 'failed', 'cancelled');
create table refunds (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    user_id uuid not null references users on delete cascade,
    original_transaction_id uuid references payment_transactions on delete set null,
    original_billing_cycle_id uuid references vps_billing_cycles on delete set null,
    original_hosting_subscription_id uuid references hosting_subscriptions on delete set null,
    original_hosting_billing_cycle_id uuid references hosting_billing_cycles on delete set null,
    amount numeric(10, 2) not null,
    currency varchar(10) not null default 'USD',
    reason text not null,
    status refund_status not null default 'pending',
    initiated_by_type varchar(20) not null,
    metadata jsonb default '{}',
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);

-- Egress: prepaid gigabytes, their purchases, what each instance used, and the monthly overage.
create table organization_egress_credits (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null unique references organizations on delete cascade,
    credits_gb numeric(18, 6) not null default 0 check (credits_gb >= 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table egress_credit_packs (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    pack_id varchar(50) not null,
    credits_gb numeric(18, 6) not null,
    amount_paid numeric(12, 6) not null,
    payment_transaction_id uuid references payment_transactions on delete set null,
    created_at timestamptz not null default now(),
    reason text,
    adjustment_type varchar(20) not null default 'purchase'
        check (adjustment_type in ('purchase', 'admin_add', 'admin_remove', 'customer_refund'))
);

create table vps_egress_hourly_readings (
    id uuid primary key default gen_random_uuid(),
    vps_instance_id uuid not null references vps_instances on delete cascade,
    organization_id uuid not null references organizations,
    provider_instance_id integer not null,
    transfer_used_gb numeric(18, 6) not null,
    delta_gb numeric(18, 6) not null,
    credits_deducted_gb numeric(18, 6) not null,
    reading_at timestamptz not null default now(),
    created_at timestamptz not null default now()
);

create table organization_egress_billing_cycles (
    id uuid primary key default gen_random_uuid(),
    billing_month date not null,
    pool_id varchar(64) not null,
    pool_scope varchar(32) not null check (pool_scope in ('global', 'region')),
    organization_id uuid not null references organizations on delete cascade,
    total_amount numeric(12, 6) not null default 0,
    status varchar(32) not null default 'preview' check (status in ('preview', 'pending', 'billed', 'failed', 'void')),
    metadata jsonb not null default '{}',
    billed_transaction_id uuid references payment_transactions on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (billing_month, pool_id, organization_id)
);

do $$
declare
    stamped text;
begin
    foreach stamped in array array['users', 'organizations', 'wallets', 'vps_plans', 'vps_instances',
        'payment_transactions', 'vps_billing_cycles', 'service_providers', 'hosting_wallets', 'hosting_plans',
        'hosting_subscriptions', 'hosting_billing_cycles', 'refunds', 'organization_egress_credits',
        'organization_egress_billing_cycles']
    loop
        execute format('create trigger update_%1$s_updated_at before update on %1$s for each row '
            'execute function update_updated_at_column()', stamped);
    end loop;
end $$;

-- Row level security. The application connects as the owner of the tables, whom none of it binds; every other role reads what
-- its session's organization may see, or everything where no organization is named, and writes as an administrator.
-- Two things are peculiar: a wallet can be inserted by no other role at all, and nobody updates a transaction.
do $$
declare
    guarded text;
    admin constant text := 'current_setting(''app.current_user_is_admin'', true) = ''true''';
    own_or_none constant text := 'organization_id::text = current_setting(''app.current_org_id'', true) '
        'or current_setting(''app.current_org_id'', true) is null';
begin
    foreach guarded in array array['wallets', 'payment_transactions', 'billing_invoices', 'organization_egress_credits',
        'organization_egress_billing_cycles', 'hosting_wallets', 'hosting_subscriptions']
    loop
        execute format('alter table %I enable row level security', guarded);
        execute format('create policy "view own %1$s" on %1$I for select using (%2$s or %3$s)', guarded, own_or_none, admin);
    end loop;
    execute format('create policy "admin updates wallet" on wallets for update using (%s)', admin);
    execute format('create policy "admin inserts transactions" on payment_transactions for insert with check (%s)', admin);
    execute 'create policy "no updates to transactions" on payment_transactions for update using (false)';
    execute format('create policy "admin deletes transactions" on payment_transactions for delete using (%s)', admin);
    execute format('create policy "admin inserts invoices" on billing_invoices for insert with check (%s)', admin);
    execute format('create policy "admin manages credits" on organization_egress_credits using (%s)', admin);
    execute format('create policy "admin inserts hosting wallet" on hosting_wallets for insert with check (%s)', admin);
    execute format('create policy "admin updates hosting wallet" on hosting_wallets for update using (%s)', admin);
end $$;
