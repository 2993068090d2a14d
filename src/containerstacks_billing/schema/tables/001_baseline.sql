-- no-transaction
-- The tables that billing reads and writes: those of the host application, made or adopted, and its own.
--
-- On an empty database this file makes the seven tables of the host that billing touches, with the host's column names, types and
-- constraints, so that the host application can be installed over them later. On an existing ContainerStacks database it adds what
-- is missing and changes only what is wrong, in place. No row, column or table of the host is dropped or renamed, and every
-- statement that the host application makes goes on working. What is changed, and why:
--
--   * `hourly_rate` and `total_amount` become unconstrained `numeric`. They hold numeric(18,8) in meaning, but a change to another
--     scale rewrites the table under an exclusive lock, and a change to plain `numeric` does not touch a row. What the type no
--     longer says, a CHECK says, for our rows only: the host's may keep whatever they hold.
--   * The foreign keys of `vps_billing_cycles` go. Two of them delete charges together with their instance or organization, so
--     the history of what was paid disappears, and past-due charges with it. All of them cost: a run over a million instances takes
--     2.9 times as long with them.
--   * Five indexes of `vps_billing_cycles` make room for ours: with them a run takes 1.9 times as long and writes twice the WAL. The
--     index on `vps_instances.last_billed_at` makes every watermark update touch every index of the table (2.1 times), and finds
--     nothing that is due.
--   * Watermarks move to where the ledger says an instance is paid up to, and wallets get an opening.
--
-- What a new table of the host's leaves out on purpose: `uuid_generate_v4()`, which needs an extension (`gen_random_uuid()` is built
-- in), and the host's `updated_at` triggers, whose installer would stop at ours.
--
-- Not in here: billing_daemon_status (012, the host's number for the host's table), tables that a run writes again
-- (code/derived.sql), functions and triggers (code/). The numbers 002 to 011 stay free: in the host application they name
-- migrations of its own.
--
-- Why this is not one transaction: it would hold an exclusive lock on the ledger while indexes are built over it, which is minutes
-- on a big one. So the file is a row of steps. A step between `begin` and `commit` takes its locks for milliseconds unless it says
-- otherwise; an index is built concurrently, while the host reads and writes. Every step may be repeated, so a migration that was
-- killed half-way is finished by running it again, from the start, also with psql. `-- locks:` and `-- creates:` are what
-- `migrate --dry-run` shows; schema/README.md has their form.

-- step: the tables of the host application
-- creates: users, organizations, wallets, vps_plans, vps_instances, payment_transactions, vps_billing_cycles
begin;
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
                          and not a.attisdropped and a.atttypid = to_regtype(wanted.type_name));
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
commit;

-- step: the tables of billing
-- creates: billing_policies, billing_leases, billing_runs, plan_price_versions, billing_usage_segments, billing_metering_failures, billing_decisions, billing_price_corrections, billing_adjustments, billing_events, billing_tokens
begin;
-- billing_clock() is the only way in which this product asks the database for the time. It stands in one place so that a test can
-- replace it in its own database and make a day pass in a second. The lease is the exception: it measures how long a process may
-- stay silent, so it reads clock_timestamp() itself and no test can bend it.
create or replace function billing_clock() returns timestamptz
    language sql volatile parallel safe
    return clock_timestamp();

-- What is billable, and how a partial hour ends, from when on. The rows are contiguous: one is in force at any instant.
-- A usage segment is judged by the policy of its own time, so a change of BILLABLE_STATUSES or PARTIAL_HOUR never reaches into the
-- past. The array {*} stands for every status.
create table if not exists billing_policies (
    id                bigint generated always as identity primary key,
    billable_statuses text[]      not null,
    partial_hour      text        not null
        constraint billing_policies_known_partial_hour check (partial_hour in ('prorate', 'full', 'free')),
    valid_from        timestamptz not null
        constraint billing_policies_one_per_instant unique,
    valid_to          timestamptz not null default 'infinity',
    settled           boolean     not null default true,
    constraint billing_policies_forward check (valid_from < valid_to)
);
comment on column billing_policies.settled is
    'false while the segments that the previous policy left open are still being closed';

insert into billing_policies (billable_statuses, partial_hour, valid_from)
select '{running}', 'prorate', '-infinity'
where not exists (select from billing_policies);

-- A batch holds its lease row FOR KEY SHARE. A renewal touches no key column and passes; a takeover or a release
-- changes token or nonce, which are a key, and so waits for the batches that are under way, and then no later batch
-- finds the row. Without the unique constraint the update would not be a key update, and a takeover would slip through.
-- The nonce is there because an asynchronous replica that was promoted can issue a token a second time.
create table if not exists billing_leases (
    name          text primary key,
    holder        text,
    fencing_token bigint      not null default 0,
    nonce         uuid        not null default gen_random_uuid(),
    acquired_at   timestamptz,
    renewed_at    timestamptz,
    expires_at    timestamptz not null default '-infinity',
    constraint billing_leases_fence unique (name, fencing_token, nonce)
);
insert into billing_leases (name) values ('billing') on conflict (name) do nothing;

-- A run, and the rates of the fleet that the brake compares the next run with. The average price of an instance says little when
-- many instances have no price at the moment: a plan whose price became unusable and was repaired would look like a jump of the
-- whole fleet. So the instances that had a price are counted beside all. And an average hides one plan among many, so the hourly
-- rate of each plan in use is kept too: a few hundred bytes a run, one entry per plan, never one per instance.
--
-- A run that finds a reason of its own to be held is the hold (held_by is null). The runs after it end as held as well, each hour,
-- and name it; releasing it releases them.
create table if not exists billing_runs (
    id                    bigint generated always as identity primary key,
    trigger               text        not null,
    holder                text        not null,
    fencing_token         bigint      not null,
    organization_id       uuid,
    as_of                 timestamptz not null,
    host_clock            timestamptz not null,
    started_at            timestamptz not null default billing_clock(),
    finished_at           timestamptz,
    outcome               text
        constraint billing_runs_known_outcome check (outcome in ('completed', 'interrupted', 'failed', 'held')),
    error_message         text,
    hours_per_month       integer     not null,
    fleet_instances       bigint      not null default 0,
    fleet_hourly_rate     numeric     not null default 0,
    batches_planned       integer     not null default 0,
    instances_planned     bigint      not null default 0,
    batches               integer     not null default 0,
    instances_billed      bigint      not null default 0,
    hours                 numeric     not null default 0,
    amount                numeric     not null default 0,
    past_due_instances    bigint      not null default 0,
    quarantined_instances bigint      not null default 0,
    held_instances        bigint      not null default 0,
    released_at           timestamptz,
    released_by           text,
    release_reason        text,
    fleet_rated_instances bigint      not null default 0,
    fleet_rates           jsonb       not null default '{}',
    held_by               bigint
) with (fillfactor = 50);
create index if not exists billing_runs_started on billing_runs (started_at desc);
create index if not exists billing_runs_open on billing_runs (id) where outcome is null;
create index if not exists billing_runs_outcome on billing_runs (outcome, id desc);
-- Built-in billing asks for its own last run every minute, among all the runs of the daemon.
create index if not exists billing_runs_built_in on billing_runs (id) where trigger = 'built-in';
create index if not exists billing_runs_holds on billing_runs (id desc) where outcome = 'held' and held_by is null;
comment on column billing_runs.amount is 'exact sum of the charges that this run billed';
comment on column billing_runs.fleet_hourly_rate is
    'what all billable instances cost per hour at as_of; with fleet_instances it is what the brake compares';
comment on column billing_runs.fleet_rated_instances is 'billable instances whose plan had a usable price at as_of';
comment on column billing_runs.fleet_rates is 'hourly rate of each plan when it was last in use with a usable price, by the name that instances know it by';
comment on column billing_runs.held_by is 'the run whose hold bound this one; null: it was held for what it saw itself';

-- The price of a plan per month, from when until when; functions.sql has the rules.
create table if not exists plan_price_versions (
    id                     bigint generated always as identity primary key,
    plan_id                uuid        not null,
    valid_from             timestamptz not null,
    valid_to               timestamptz not null default 'infinity',
    base_price             numeric,
    markup_price           numeric,
    backup_price_hourly    numeric,
    backup_upcharge_hourly numeric,
    announced              boolean     not null default false,
    recorded_at            timestamptz not null default clock_timestamp(),
    recorded_by            text        not null default session_user,
    reason                 text,
    begins_at_commit       boolean     not null default true,
    constraint plan_price_versions_one_per_instant unique (plan_id, valid_from),
    constraint plan_price_versions_forward check (valid_from < valid_to)
);
comment on table plan_price_versions is 'What a plan costs per month, from when until when; no foreign key: a deleted plan keeps its prices';
comment on column plan_price_versions.announced is 'entered ahead of its time; vps_plans does not show it yet';
comment on column plan_price_versions.begins_at_commit is 'false: the instant from which it holds was given';

-- A closed usage segment: a part of an instance's life at one plan, status and organization; functions.sql has the rules.
create table if not exists billing_usage_segments (
    id              bigint generated always as identity primary key,
    organization_id uuid        not null,
    instance_id     uuid        not null,
    label           text,
    plan_id         text,
    status          text,
    backups         boolean     not null default false,
    started_at      timestamptz not null,
    ended_at        timestamptz not null,
    charge_until    timestamptz not null,
    closed_at       timestamptz not null,
    reason          text        not null
        constraint billing_usage_segments_known_reason
        check (reason in ('status', 'plan', 'organization', 'backups', 'deleted', 'policy')),
    rated_from      timestamptz,
    outcome         text
        constraint billing_usage_segments_known_outcome
        check (outcome in ('charged', 'not billable', 'free', 'waived', 'damaged')),
    run_id          bigint,
    constraint billing_usage_segments_forward check (started_at <= charge_until and started_at <= ended_at)
);
create index if not exists billing_usage_segments_due on billing_usage_segments (organization_id) where outcome is null;
create index if not exists billing_usage_segments_instance on billing_usage_segments (organization_id, instance_id, started_at);
comment on column billing_usage_segments.outcome is 'null: still to be charged';
comment on column billing_usage_segments.charge_until is
    'the end of what is to be charged: before ended_at under PARTIAL_HOUR=free, otherwise equal to it';

-- A usage segment that is still in the row of its instance, because no run has flushed it yet.
do $$
begin
    if to_regtype('public.billing_pending_segment') is null then
        create type billing_pending_segment as (
            plan_id    text,
            status     text,
            backups    boolean,
            started_at timestamptz,
            ended_at   timestamptz,
            closed_at  timestamptz,
            reason     text
        );
    end if;
end $$;

-- What metering could not store, as JSON, for `doctor` and `verify` to find.
create table if not exists billing_metering_failures (
    id          bigint generated always as identity primary key,
    failed_at   timestamptz not null default clock_timestamp(),
    error       text        not null,
    segment     text        not null
);

-- Who decided what about hours that were held. 'charge' lets hours before charge_until pass the catch-up bound; waived
-- hours are explained to verify by waived_from and waived_to. Rows are never removed.
create table if not exists billing_decisions (
    id              bigint generated always as identity primary key,
    organization_id uuid        not null,
    instance_id     uuid        not null,
    segment_id      bigint      not null default 0,
    decision        text        not null
        constraint billing_decisions_known_decision check (decision in ('charge', 'cap', 'waive')),
    charge_until    timestamptz,
    waived_from     timestamptz,
    waived_to       timestamptz,
    decided_at      timestamptz not null default clock_timestamp(),
    decided_by      text        not null,
    reason          text        not null
);
create index if not exists billing_decisions_instance on billing_decisions (organization_id, instance_id, charge_until);

-- Corrections of prices in the past: what was decided, and what it changed for each charge.
--
-- A charge is a fact and is never rewritten once it is billed: the customer has seen it, and it has a ledger entry. What a
-- correction changes is written beside it, as an adjustment: these hours of this charge, the rate of before, the rate of
-- now, the exact signed difference (positive: the customer pays more). So for every wallet
--
--     sum of billed charges + sum of adjustments = sum of debits - sum of credits + carry
--
-- A past-due charge has moved no money yet and is rated anew in its own row.
--
-- A correction replaces the price of one span: from an instant until the next recorded version begins. Spans of one plan
-- are therefore disjoint or nested, never crossed, and the later one counts. The row of a correction keeps the price that it
-- replaced, which is what the hours of the span are recognised by. The unique key of an adjustment lets a correction that was
-- killed, or that found a wallet short, be given again: it posts what is missing and nothing twice.

create table if not exists billing_price_corrections (
    id                  bigint generated always as identity primary key,
    plan_id             uuid        not null,
    corrected_from      timestamptz not null,
    corrected_until     timestamptz not null,
    old_base_price      numeric,
    old_markup_price    numeric,
    new_base_price      numeric     not null,
    new_markup_price    numeric     not null,
    backup_hourly       numeric     not null default 0,
    decided_at          timestamptz not null,
    decided_by          text        not null,
    reason              text,
    last_posted_at      timestamptz,
    unposted_charges    bigint,
    unposted_amount     numeric,
    constraint billing_price_corrections_forward check (corrected_from < corrected_until)
);
create index if not exists billing_price_corrections_plan on billing_price_corrections (plan_id, corrected_from);
comment on column billing_price_corrections.corrected_until is
    'the begin of the next recorded version, at most decided_at: later hours were rated at the new price from the start';
comment on column billing_price_corrections.unposted_charges is
    'how many charges wallets could not pay the difference of, when it was last given; null: it was not finished yet';

create table if not exists billing_adjustments (
    id                     bigint generated always as identity primary key,
    correction_id          bigint      not null,
    posting                uuid        not null,
    charge_id              uuid        not null,
    organization_id        uuid        not null,
    instance_id            uuid        not null,
    hours_from             timestamptz not null,
    hours_until            timestamptz not null,
    old_rate               numeric     not null,
    new_rate               numeric     not null,
    amount                 numeric     not null,
    payment_transaction_id uuid,
    created_at             timestamptz not null,
    decided_by             text        not null,
    reason                 text,
    constraint billing_adjustments_once unique (organization_id, charge_id, correction_id),
    constraint billing_adjustments_forward check (hours_from < hours_until),
    constraint billing_adjustments_exact check (amount > -10000000000 and amount < 10000000000 and scale(amount) <= 8)
);
comment on table billing_adjustments is 'The exact differences that price corrections made to billed charges; positive: the customer pays more';
comment on column billing_adjustments.posting is 'the transaction that posted it: one ledger entry at most per wallet and posting';
comment on column billing_adjustments.payment_transaction_id is 'null where the wallet''s whole cents did not change';

-- What the host has to know about wallets. An event is written in the transaction that makes it true (a transactional outbox), so
-- there is none for what was rolled back and none is lost between COMMIT and a message. Sending comes later and may fail as often
-- as it likes: billing never waits for it. The row is the truth, NOTIFY only says that there is one. An event is announced once
-- because the state that it reports is kept beside it, in billing_runways (code/derived.sql).
create table if not exists billing_events (
    id              bigint generated always as identity primary key,
    event_id        uuid        not null default gen_random_uuid(),
    kind            text        not null
        constraint billing_events_known_kind check (kind in ('runway_72h', 'runway_24h', 'runway_3h', 'past_due',
            'recovered', 'run_held', 'instance_held', 'instance_quarantined')),
    organization_id uuid,
    wallet_id       uuid,
    run_id          bigint,
    occurred_at     timestamptz not null,
    payload         jsonb       not null default '{}',
    attempts        integer     not null default 0,
    next_attempt_at timestamptz not null default billing_clock(),
    delivered_at    timestamptz,
    dead_at         timestamptz,
    last_error      text,
    constraint billing_events_delivered_or_dead check (delivered_at is null or dead_at is null)
);
create index if not exists billing_events_waiting on billing_events (next_attempt_at, id)
    where delivered_at is null and dead_at is null;
create index if not exists billing_events_of_organization on billing_events (organization_id, id);
create index if not exists billing_events_occurred on billing_events (occurred_at);
comment on table billing_events is 'Events for the host, once each; no foreign keys: an event outlives what it is about';
comment on column billing_events.event_id is 'the same in every attempt to deliver it: the receiver recognises a repetition by it';
comment on column billing_events.next_attempt_at is 'when it may be sent; a sender moves it ahead before it sends, and so claims it';
comment on column billing_events.dead_at is 'given up: too many attempts, refused for good, or too old when a receiver was configured';
create index if not exists billing_events_dead on billing_events (id) where dead_at is not null;

-- Tokens that open the application side. A token is 256 random bits, so its SHA-256 cannot be searched for and needs no salt: a
-- reader of this table, or of a backup of it, cannot use what is in it. A revoked token keeps its row, because "who was it"
-- is asked later.
create table if not exists billing_tokens (
    id           bigint generated always as identity primary key,
    name         text        not null
        constraint billing_tokens_short_name check (char_length(name) between 1 and 100),
    token_hash   bytea       not null
        constraint billing_tokens_one_per_hash unique
        constraint billing_tokens_sha_256 check (octet_length(token_hash) = 32),
    created_at   timestamptz not null default billing_clock(),
    created_by   text        not null,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
create unique index if not exists billing_tokens_one_per_name on billing_tokens (name) where revoked_at is null;
comment on table billing_tokens is 'Admin tokens of the application side; only their SHA-256 is kept';
commit;

-- step: columns and exact amounts of vps_billing_cycles
-- locks: {vps_billing_cycles}: six columns are added and amounts become exact without rewriting a row; locked against readers and writers for milliseconds.
begin;
-- run_id distinguishes our charges from the host's rows: ours always have it, the host never writes it.
alter table vps_billing_cycles
    add column if not exists run_id bigint,
    add column if not exists plan_id uuid,
    add column if not exists segment_id bigint,
    add column if not exists grown_from timestamptz,
    add column if not exists past_due_since timestamptz,
    add column if not exists past_due_batch integer;

-- A view, a policy or a generated column that reads an amount forbids changing its type. That must not stop the rest:
-- the column is left as it is, the adoption report prints the statements that change it, and nothing is billed until
-- then, because a ledger of two decimals cannot hold what is owed.
do $$
declare
    amount record;
begin
    for amount in
        select attname from pg_attribute
         where attrelid = 'vps_billing_cycles'::regclass and attname in ('hourly_rate', 'total_amount') and atttypmod <> -1
    loop
        begin
            execute format('alter table vps_billing_cycles alter column %I type numeric', amount.attname);
        exception when feature_not_supported or syntax_error then
            raise notice 'vps_billing_cycles.% keeps its two or four decimals for now: %', amount.attname, sqlerrm;
        end;
    end loop;
end
$$;

-- NOT VALID spares the scan. It loses nothing: at this moment no row is ours, and every later one is checked.
-- NaN is greater than every number, so the upper bounds refuse it.
do $$
begin
    if not exists (select from pg_constraint where conrelid = 'vps_billing_cycles'::regclass
                                               and conname = 'vps_billing_cycles_charge_is_exact') then
        alter table vps_billing_cycles add constraint vps_billing_cycles_charge_is_exact check (
            run_id is null
            or (hourly_rate >= 0 and hourly_rate < 10000000000 and scale(hourly_rate) <= 8
                and total_amount >= 0 and total_amount < 10000000000 and scale(total_amount) <= 8)
        ) not valid;
    end if;
    if not exists (select from pg_constraint where conrelid = 'vps_billing_cycles'::regclass
                                               and conname = 'vps_billing_cycles_charge_period_is_forward') then
        alter table vps_billing_cycles add constraint vps_billing_cycles_charge_period_is_forward check (
            run_id is null
            or (isfinite(billing_period_start) and isfinite(billing_period_end)
                and billing_period_start < billing_period_end)
        ) not valid;
    end if;
end
$$;

comment on column vps_billing_cycles.run_id is 'the billing run that wrote this charge; null: written by the host application';
comment on column vps_billing_cycles.plan_id is 'the plan whose price the hourly rate is';
comment on column vps_billing_cycles.segment_id is 'the usage segment that this charge closes; null: a running instance';
comment on column vps_billing_cycles.grown_from is 'a past-due charge grows at its end; this is the end it grew from';
comment on column vps_billing_cycles.past_due_since is 'when the wallet first could not pay this charge; kept after it was paid';
commit;

-- step: charges outlive their instance
-- locks: vps_billing_cycles, vps_instances, organizations and payment_transactions, milliseconds, while foreign keys of {vps_billing_cycles} are dropped, so that charges outlive their instance.
begin;
-- All four tables are locked at once and in the order in which the host writes them, so that no deadlock with it is
-- possible in the middle. The triggers of the foreign keys live on the tables they point to.
lock table vps_billing_cycles, payment_transactions, vps_instances, organizations in access exclusive mode;
do $$
declare
    key record;
begin
    for key in
        select conname from pg_constraint
         where contype = 'f' and conrelid = 'vps_billing_cycles'::regclass
           and confrelid in ('vps_instances'::regclass, 'organizations'::regclass, 'payment_transactions'::regclass)
    loop
        execute format('alter table vps_billing_cycles drop constraint %I', key.conname);
    end loop;
end
$$;
commit;

-- step: columns of vps_instances, and room for updates
-- locks: {vps_instances}: four columns are added without rewriting a row, and its index on last_billed_at is dropped; locked against readers and writers for milliseconds.
begin;
-- rated_until is our copy of the watermark. The host writes last_billed_at too; where the two differ, the host moved it.
-- rated_from is the first instant we answer for. 30 % of each page stay free, so that an hourly watermark update finds
-- room beside the row and touches no index: the third run takes 8.5 s instead of 11.0 for a million instances.
alter table vps_instances
    add column if not exists last_billed_at timestamptz,
    add column if not exists rated_from timestamptz,
    add column if not exists rated_until timestamptz,
    add column if not exists pending_segments billing_pending_segment[];
alter table vps_instances set (fillfactor = 70);
comment on column vps_instances.rated_from is 'the watermark at adoption or insertion: billing answers for every hour since';
comment on column vps_instances.rated_until is 'the watermark as billing last wrote it, beside last_billed_at, which the host may write';
comment on column vps_instances.pending_segments is
    'usage segments that a change has closed since the last run, oldest first, until a run flushes them to billing_usage_segments';

do $$
declare
    stale record;
begin
    if not exists (select from pg_index where indrelid = 'vps_instances'::regclass and indisvalid
                      and indpred is null
                      and indkey[0] = (select attnum from pg_attribute
                                        where attrelid = 'vps_instances'::regclass and attname = 'organization_id')) then
        create index idx_vps_instances_org_id on vps_instances (organization_id);
    end if;
    -- Only the plain index on that one column: another that merely contains it was a decision, and the
    -- adoption report names it.
    for stale in
        select i.indexrelid::regclass as name
          from pg_index i
         where i.indrelid = 'vps_instances'::regclass and not i.indisunique and i.indnatts = 1
           and i.indkey[0] = (select attnum from pg_attribute
                               where attrelid = 'vps_instances'::regclass and attname = 'last_billed_at')
    loop
        execute format('drop index %s', stale.name);
    end loop;
end
$$;

-- Before watermarks move, so that they are no edit.
\ir ../code/instance_edits.sql
commit;

-- step: openings and carried remainders of wallets
-- locks: {wallets} is locked against readers and writers for about {read payment_transactions} s, while {payment_transactions} is summed once.
begin;
-- The lock keeps a top-up from falling between balance and sum, and a new wallet between the sums and the trigger.
lock table wallets in access exclusive mode;
do $$
begin
    if exists (select from pg_attribute where attrelid = 'wallets'::regclass and attname = 'billing_opening') then
        return;                                     -- a second opening would swallow whatever drifted since the first
    end if;
    alter table wallets
        add column billing_carry numeric(12, 8) not null default 0
            constraint wallets_carry_below_a_cent check (billing_carry >= 0 and billing_carry < 0.01),
        add column billing_opening numeric not null default 0,
        add column past_due_since timestamptz;
    with entries as (
        select organization_id, currency, sum(amount) as total
          from payment_transactions
         where status = 'completed' and amount <> 'NaN'
         group by organization_id, currency
    ), ranked as (
        select id, organization_id, currency, coalesce(nullif(balance, 'NaN'), 0) as balance,
               row_number() over (partition by organization_id, currency order by created_at, id) as age_rank
          from wallets
    )
    update wallets w
       set billing_opening = r.balance - case when r.age_rank = 1 then coalesce(e.total, 0) else 0 end
      from ranked r
      left join entries e on e.organization_id = r.organization_id and e.currency is not distinct from r.currency
     where r.id = w.id;
end
$$;
\ir ../code/wallet_opening.sql
comment on column wallets.billing_carry is 'billed but not yet debited, below one cent';
comment on column wallets.billing_opening is 'what the balance was beyond the completed ledger entries when billing first saw it';
comment on column wallets.past_due_since is 'since when this wallet has charges it could not pay; null: none';
commit;

-- step: clear away indexes that a killed build left unusable
begin;
-- The locks wait for a build that may still be going on in a session whose client was killed. What is invalid after
-- that belongs to no build. An index that became valid meanwhile stays.
lock table vps_billing_cycles in share update exclusive mode;
do $$
declare
    broken record;
begin
    for broken in
        select i.indexrelid::regclass as name
          from pg_index i join pg_class c on c.oid = i.indexrelid
         where i.indrelid = 'vps_billing_cycles'::regclass and not i.indisvalid
           and c.relname like 'vps\_billing\_cycles\_%'
    loop
        execute format('drop index %s', broken.name);
    end loop;
end
$$;
commit;

-- step: clear away an index of payment_transactions that a killed build left unusable
begin;
lock table payment_transactions in share update exclusive mode;
do $$
begin
    if exists (select from pg_index where indexrelid = to_regclass('payment_transactions_debits_of_host') and not indisvalid) then
        drop index payment_transactions_debits_of_host;
    end if;
end
$$;
commit;

-- step: the unique key over our charges
-- locks: An index of {vps_billing_cycles}, the unique key, is built concurrently in about {index vps_billing_cycles} s; no session waits for it, it waits for transactions that are open at that time.
-- For our rows the last column is null, and nulls are not distinct: one charge per organization, instance and start.
-- For the host's, which may hold the same hour twice already, it is their own id, so nothing of theirs is refused.
-- Organization first, because a batch is a range of organizations; then the start, because the hours of this run then
-- stand side by side at the end of their organization, and a batch writes to a page per organization instead of one per
-- instance, however deep the history is. It covers all rows, because the host's billing pages read the history of an
-- organization through it too: a second index for them made the insert of charges a quarter slower, and a partial one
-- cannot be chosen for queries that do not say `run_id is null`.
create unique index concurrently if not exists vps_billing_cycles_one_charge_per_hour
    on vps_billing_cycles (organization_id, billing_period_start, vps_instance_id,
        (case when run_id is null then id end)) nulls not distinct;

-- step: charges that are past due
-- locks: A second index of {vps_billing_cycles}, of past-due charges, is built concurrently in about {read vps_billing_cycles} s.
create index concurrently if not exists vps_billing_cycles_past_due
    on vps_billing_cycles (organization_id) where status = 'failed' and run_id is not null;

-- step: charges that were past due once
-- locks: A third index of {vps_billing_cycles}, of charges that were past due, is built concurrently in about {read vps_billing_cycles} s.
create index concurrently if not exists vps_billing_cycles_once_past_due
    on vps_billing_cycles (run_id, organization_id) where past_due_since is not null;

-- step: the host's own indexes on vps_billing_cycles
-- locks: {vps_billing_cycles} loses the indexes that its installer made; locked against readers and writers for milliseconds.
begin;
-- Those that the host's installer makes, recognised by what they cover. An index that was added stays, unique or not,
-- and the adoption report says what it costs.
do $$
declare
    replaced record;
begin
    for replaced in
        select i.indexrelid::regclass as name
          from pg_index i
         where i.indrelid = 'vps_billing_cycles'::regclass
           and not i.indisunique and i.indpred is null and i.indexprs is null
           and (select string_agg(a.attname, ',' order by k.position)
                  from unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
                  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum)
               in ('vps_instance_id', 'organization_id', 'status', 'created_at', 'billing_period_start,billing_period_end')
    loop
        execute format('drop index %s', replaced.name);
    end loop;
end
$$;
commit;

-- step: debits that are not ours
-- locks: An index of {payment_transactions}, of the debits that are not ours, is built concurrently in about {index payment_transactions} s; no session waits for it, it waits for transactions that are open at that time.
-- BUILT_IN_BILLING=auto asks for the newest one every minute. Our own debits name their run in provider_transaction_id and
-- stay out of the index, so a run does not pay for it.
create index concurrently if not exists payment_transactions_debits_of_host on payment_transactions (created_at)
    where payment_method = 'wallet_debit' and coalesce(provider_transaction_id, '') not like 'billing-%';

-- step: watermarks at adoption
-- locks: {vps_instances}: watermarks are set in one statement; its rows are locked for about {write vps_instances} s, after {vps_billing_cycles} has been read in about {read vps_billing_cycles} s.
begin;
-- An instance is paid up to the later of its watermark and the end of its last billed row, wherever the host's two transactions left
-- them. A result in the future, or one that is infinite or missing, is not believed: last_billed_at stays as it is, and the run
-- quarantines the instance. The rows are locked for as long as this one statement runs; the ledger is read before the first.
--
-- A row that the host moved since the statement began is left to it: its own watermark is the later one then. Overwritten with the
-- older one, the first run would charge again what the host billed meanwhile. Metering of that row begins with its next update.
with paid as (
    select vps_instance_id, max(billing_period_end) as paid_until
      from vps_billing_cycles
     where status = 'billed' and isfinite(billing_period_end)
     group by vps_instance_id
), candidates as (
    select i.id, i.last_billed_at, coalesce(i.last_billed_at, i.created_at) as watermark,
           greatest(coalesce(i.last_billed_at, i.created_at), p.paid_until) as later
      from vps_instances i
      left join paid p on p.vps_instance_id = i.id
     where i.rated_from is null
), believed as (
    select id, last_billed_at as seen,
           case when isfinite(later) and later <= billing_clock() then later else last_billed_at end as last_billed_at,
           case when isfinite(later) and later <= billing_clock() then later
                when isfinite(watermark) and watermark <= billing_clock() + interval '1 hour' then watermark end as rated
      from candidates
)
update vps_instances i
   set last_billed_at = b.last_billed_at, rated_from = b.rated, rated_until = b.rated
  from believed b
 where b.id = i.id and b.rated is not null and i.last_billed_at is not distinct from b.seen;
commit;
