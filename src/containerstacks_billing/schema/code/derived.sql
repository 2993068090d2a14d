-- Tables whose rows the next run, release or heartbeat writes again. Repeatable, so `migrate` makes one again that was dropped; a
-- new column of such a table is added here too, by `add column if not exists`. (billing_daemon_status is of this kind and has
-- a file of its own, tables/012_billing_daemon_status.sql, because the host application may have made it.)

-- creates: billing_quarantine, billing_quarantine_counts, billing_runways, billing_application_sides

-- One row per instance that the last run left out. A run replaces the rows of the organizations it went through, so an
-- instance leaves as soon as it has been repaired.
create table if not exists billing_quarantine (
    organization_id uuid        not null,
    instance_id     uuid        not null,
    segment_id      bigint      not null default 0,
    label           text,
    reason          text        not null,
    detail          text        not null,
    due_hours       numeric,
    first_seen_at   timestamptz not null,
    last_seen_at    timestamptz not null,
    run_id          bigint      not null,
    primary key (organization_id, instance_id, segment_id)
);
comment on table billing_quarantine is 'Quarantined instances, and held ones (reason ''held''); segment_id 0 is the open segment';
create index if not exists billing_quarantine_oldest on billing_quarantine (first_seen_at, organization_id, instance_id, segment_id);

-- Counted once by each change of billing_quarantine (the end of a run, a release; both under the lease), and not by every page
-- view: counting rows would be slow on the day on which a price table was imported wrongly.
create table if not exists billing_quarantine_counts (
    reason    text   primary key,
    instances bigint not null
);
comment on table billing_quarantine_counts is 'How many instances billing_quarantine holds, by reason; rewritten with each change of that table';
insert into billing_quarantine_counts (reason, instances)
select reason, count(distinct instance_id) from billing_quarantine group by reason
on conflict (reason) do update set instances = excluded.instances;

-- One row per paying wallet that burns money or owes: what was announced last. What differs from that is news, whichever program changed it,
-- and what changed and changed back inside one transaction is none.
create table if not exists billing_runways (
    organization_id uuid        not null,
    wallet_id       uuid        not null,
    burn_per_hour   numeric     not null default 0,
    empties_at      timestamptz,
    level           smallint
        constraint billing_runways_known_level check (level in (72, 24, 3)),
    past_due_since  timestamptz,
    updated_at      timestamptz not null,
    primary key (organization_id, wallet_id)
) with (fillfactor = 70);
comment on column billing_runways.burn_per_hour is 'what the billable instances of the organization cost per hour at the prices in force';
comment on column billing_runways.empties_at is
    'when the wallet is empty at this burn; null: it burns nothing, or lasts for a century';
comment on column billing_runways.level is 'the lowest of 72, 24 and 3 hours that the runway has come down to; null: none';
comment on column billing_runways.past_due_since is 'the mark of the wallet as it was last announced';
create index if not exists billing_runways_soonest on billing_runways (empties_at) where empties_at is not null;
-- Wallets that owe already stand before all others by the end of their runway, so those that do not owe yet have their own index.
create index if not exists billing_runways_ending on billing_runways (empties_at, organization_id)
    where empties_at is not null and past_due_since is null;
create index if not exists billing_runways_owing on billing_runways (empties_at, organization_id)
    where empties_at is not null and past_due_since is not null;
create index if not exists billing_runways_past_due on billing_runways (organization_id) where past_due_since is not null;
-- A table that was made again does not announce a second time who owes.
insert into billing_runways (organization_id, wallet_id, past_due_since, updated_at)
select organization_id, id, past_due_since, billing_clock() from wallets
where past_due_since is not null and not exists (select from billing_runways)
on conflict (organization_id, wallet_id) do nothing;

-- One row per application side: written at each of its looks, removed when it ends. It says what takes over when the daemon is
-- silent, and nothing is decided by it.
create table if not exists billing_application_sides (
    holder         text        primary key,
    setting        text        not null
        constraint billing_application_sides_known_setting check (setting in ('auto', 'on', 'off')),
    failover_after interval    not null,
    looked_at      timestamptz not null
);
comment on table billing_application_sides is 'Application sides that may take over: BUILT_IN_BILLING, failover threshold and last look of each';
