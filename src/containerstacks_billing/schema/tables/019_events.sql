-- What the host has to know about wallets: events, and the runway that they are derived from.
--
-- An event is written in the transaction that makes it true (a transactional outbox), so there is none for what was rolled
-- back and none is lost between COMMIT and a message. Sending is somebody else's work, later, and may fail as often as
-- it likes: billing never waits for it. The row is the truth, NOTIFY only says that there is one.
--
-- An event is announced once because the state that it reports is kept beside it: billing_runways holds for each paying
-- wallet the level and the past-due mark that were announced last. What differs from that is news, whoever changed it, and
-- what changed and changed back inside one transaction is none.

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
comment on table billing_events is 'What the host is told, once each; no foreign keys: an event outlives what it is about';
comment on column billing_events.event_id is 'the same in every attempt to deliver it: the receiver recognises a repetition by it';
comment on column billing_events.next_attempt_at is 'when it may be sent; a sender moves it ahead before it sends, and so claims it';
comment on column billing_events.dead_at is 'given up: too many attempts, refused for good, or too old when a receiver was configured';

-- Equal notifications of one transaction are folded into one by PostgreSQL, so the payload stays empty. A transaction
-- that notifies takes its turn with others that do while it commits; hence none without an event.
create or replace function billing_notify_events() returns trigger
    language plpgsql
as $$
begin
    if exists (select from new_events) then
        notify billing_events;
    end if;
    return null;
end $$;

drop trigger if exists billing_notify_events on billing_events;
create trigger billing_notify_events after insert on billing_events
    referencing new table as new_events
    for each statement execute function billing_notify_events();

-- One row per paying wallet that burns money or owes. Written when something changed that a person would call a change,
-- which a steady fleet does not.
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
create index if not exists billing_runways_soonest on billing_runways (empties_at) where empties_at is not null;
comment on column billing_runways.burn_per_hour is 'what the billable instances of the organization cost per hour at the prices in force';
comment on column billing_runways.empties_at is
    'when the wallet is empty at this burn; null: it burns nothing, or lasts for a century';
comment on column billing_runways.level is 'the lowest of 72, 24 and 3 hours that the runway has come down to; null: none';
comment on column billing_runways.past_due_since is 'the mark of the wallet as it was last announced';

-- Who owed before there were events is known already.
insert into billing_runways (organization_id, wallet_id, past_due_since, updated_at)
select organization_id, id, past_due_since, billing_clock() from wallets where past_due_since is not null
on conflict (organization_id, wallet_id) do nothing;

-- The lowest threshold that so many hours have come down to; null for none, and for a wallet without an end.
create or replace function billing_runway_level(hours_left double precision) returns smallint
    language sql immutable parallel safe
as $$ select (case when hours_left <= 3 then 3 when hours_left <= 24 then 24 when hours_left <= 72 then 72 end)::smallint $$;

-- How money and instants are written in JSON, by every statement that writes any.
create or replace function billing_money_text(amount numeric) returns text
    language sql immutable parallel safe
as $$ select case when scale(trim_scale(amount)) < 2 then round(amount, 2) else trim_scale(amount) end::text $$;

create or replace function billing_instant_text(at timestamptz) returns text
    language sql immutable parallel safe
as $$ select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') $$;
