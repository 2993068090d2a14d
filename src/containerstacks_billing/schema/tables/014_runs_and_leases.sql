-- Runs, the lease around them, the policy they bill by, and the one clock they read.
--
-- billing_clock() is the only way in which this product asks the database for the time. It stands in one place so that
-- a test can replace it in its own database and make a day pass in a second. The lease is the exception: it measures
-- how long a process may stay silent, so it reads clock_timestamp() itself and no test can bend it.

create or replace function billing_clock() returns timestamptz
    language sql volatile parallel safe
    return clock_timestamp();

-- What is billable, and how a partial hour ends, from when on. The rows are contiguous: one is in force at any instant.
-- The metering trigger reads them, so a stretch is judged by the policy of its own time and a change of BILLABLE_STATUSES
-- or PARTIAL_HOUR never reaches into the past. The array {*} stands for every status.
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
    'false while the stretches that the previous policy left open are still being closed';

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
    release_reason        text
) with (fillfactor = 50);
create index if not exists billing_runs_started on billing_runs (started_at desc);
create index if not exists billing_runs_open on billing_runs (id) where outcome is null;
create index if not exists billing_runs_outcome on billing_runs (outcome, id desc);
comment on column billing_runs.amount is 'exact sum of the charges that this run billed';
comment on column billing_runs.fleet_hourly_rate is
    'what all billable instances cost per hour at as_of; with fleet_instances it is what the brake compares';
