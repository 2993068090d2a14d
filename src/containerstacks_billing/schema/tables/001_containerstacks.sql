-- 001_containerstacks.sql — the tables of the host application that billing reads and writes.
--
-- On an existing ContainerStacks database every table here is already there and this file does nothing: it creates
-- what is missing and never alters what exists. On an empty database it makes the seven tables that billing touches,
-- with the host's column names, types and constraints, so that the host application can be installed over them later.
--
-- What is left out on purpose:
--   * `uuid_generate_v4()`: it needs an extension. `gen_random_uuid()` is built in and means the same.
--   * the host's `updated_at` triggers: its own installer creates them without asking whether they are there, and
--     would stop at ours.
--   * foreign keys and secondary indexes of `vps_billing_cycles`, and the index on `last_billed_at`: migration 013
--     takes them away from an existing database and says why.
--
-- The numbers 002 to 011 stay free: in the host application they name migrations of its own, and a shared number would
-- make two different files look like one in a support ticket. 012 has the host's number because it is the host's table.

-- A table that merely shares a name with one of the host's (`users` is a popular word) must be found out before
-- anything is built on it: a clear sentence here instead of a type mismatch further down.
do $$
declare
    missing text;
begin
    select string_agg(format('%s.%s (%s)', wanted.table_name, wanted.column_name, wanted.type_name), ', ')
      into missing
      from (values ('users', 'id', 'uuid'), ('organizations', 'id', 'uuid'), ('organizations', 'owner_id', 'uuid'),
                   ('wallets', 'id', 'uuid'), ('wallets', 'organization_id', 'uuid'), ('wallets', 'balance', 'numeric'),
                   ('wallets', 'currency', 'character varying'), ('wallets', 'created_at', 'timestamp with time zone'),
                   ('vps_plans', 'id', 'uuid'), ('vps_plans', 'provider_plan_id', 'character varying'),
                   ('vps_plans', 'base_price', 'numeric'), ('vps_plans', 'markup_price', 'numeric'),
                   ('vps_instances', 'id', 'uuid'), ('vps_instances', 'organization_id', 'uuid'),
                   ('vps_instances', 'plan_id', 'character varying'), ('vps_instances', 'label', 'character varying'),
                   ('vps_instances', 'status', 'character varying'),
                   ('vps_instances', 'created_at', 'timestamp with time zone'),
                   ('payment_transactions', 'id', 'uuid'), ('payment_transactions', 'organization_id', 'uuid'),
                   ('payment_transactions', 'amount', 'numeric'),
                   ('payment_transactions', 'status', 'character varying'),
                   ('vps_billing_cycles', 'id', 'uuid'), ('vps_billing_cycles', 'vps_instance_id', 'uuid'),
                   ('vps_billing_cycles', 'organization_id', 'uuid'),
                   ('vps_billing_cycles', 'billing_period_start', 'timestamp with time zone'),
                   ('vps_billing_cycles', 'billing_period_end', 'timestamp with time zone'),
                   ('vps_billing_cycles', 'hourly_rate', 'numeric'), ('vps_billing_cycles', 'total_amount', 'numeric'),
                   ('vps_billing_cycles', 'status', 'character varying')
           ) as wanted (table_name, column_name, type_name)
     where to_regclass(wanted.table_name) is not null
       and not exists (select from pg_attribute a
                        where a.attrelid = to_regclass(wanted.table_name) and a.attname = wanted.column_name
                          and not a.attisdropped and format_type(a.atttypid, null) = wanted.type_name);
    if missing is not null then
        raise exception 'this is not a ContainerStacks database that billing understands; missing: %', missing
              using hint = 'Check the database name in DATABASE_URL, or bring the host application up to date first.';
    end if;
end
$$;

create table if not exists users (
    id            uuid primary key default gen_random_uuid(),
    email         varchar(255) unique not null,
    password_hash varchar(255) not null,
    name          varchar(255) not null,
    role          varchar(50) default 'user' check (role in ('admin', 'user')),
    phone         varchar(50),
    timezone      varchar(100),
    preferences   jsonb default '{}',
    created_at    timestamptz default now(),
    updated_at    timestamptz default now()
);

create table if not exists organizations (
    id         uuid primary key default gen_random_uuid(),
    name       varchar(255) not null,
    slug       varchar(255) unique not null,
    owner_id   uuid not null references users (id) on delete cascade,
    settings   jsonb default '{}',
    website    varchar(500),
    address    text,
    tax_id     varchar(100),
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);

create table if not exists wallets (
    id              uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations (id) on delete cascade,
    balance         numeric(10, 2) default 0.00,
    currency        varchar(3) default 'USD',
    created_at      timestamptz default now(),
    updated_at      timestamptz default now()
);

create table if not exists vps_plans (
    id               uuid primary key default gen_random_uuid(),
    name             varchar(255) not null,
    provider_plan_id varchar(255) not null,
    provider_id      uuid,
    base_price       numeric(10, 2) not null default 0.00,
    markup_price     numeric(10, 2) not null default 0.00,
    specifications   jsonb not null default '{}',
    active           boolean not null default true,
    created_at       timestamptz default now(),
    updated_at       timestamptz default now()
);

create table if not exists vps_instances (
    id                   uuid primary key default gen_random_uuid(),
    organization_id      uuid not null references organizations (id) on delete cascade,
    plan_id              varchar(255) not null,
    provider_instance_id varchar(255) not null,
    label                varchar(255) not null,
    status               varchar(50) default 'provisioning',
    ip_address           inet,
    configuration        jsonb default '{}',
    created_at           timestamptz default now(),
    updated_at           timestamptz default now(),
    last_billed_at       timestamptz
);

create table if not exists payment_transactions (
    id                      uuid primary key default gen_random_uuid(),
    organization_id         uuid not null references organizations (id) on delete cascade,
    amount                  numeric(10, 2) not null,
    currency                varchar(3) default 'USD',
    payment_method          varchar(50) not null,
    payment_provider        varchar(50) not null,
    provider_transaction_id varchar(255),
    status                  varchar(50) default 'pending'
                            check (status in ('pending', 'completed', 'failed', 'refunded')),
    description             text,
    metadata                jsonb default '{}',
    created_at              timestamptz default now(),
    updated_at              timestamptz default now()
);

create table if not exists vps_billing_cycles (
    id                     uuid primary key default gen_random_uuid(),
    vps_instance_id        uuid not null,
    organization_id        uuid not null,
    billing_period_start   timestamptz not null,
    billing_period_end     timestamptz not null,
    hourly_rate            numeric(10, 4) not null,
    total_amount           numeric(10, 2) not null,
    status                 varchar(50) default 'pending'
                           check (status in ('pending', 'billed', 'failed', 'refunded')),
    payment_transaction_id uuid,
    metadata               jsonb default '{}',
    created_at             timestamptz default now(),
    updated_at             timestamptz default now()
);

-- One index led by organization per table: every statement of billing joins on it. The names are the host's, so that
-- its own `create index if not exists` finds them.
create index if not exists idx_organizations_owner_id on organizations (owner_id);
create index if not exists idx_wallets_org_id on wallets (organization_id);
create index if not exists idx_vps_instances_org_id on vps_instances (organization_id);
create index if not exists idx_payment_transactions_org_id on payment_transactions (organization_id);
