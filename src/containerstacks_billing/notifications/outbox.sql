-- Outbox of events: enqueue, claim, record, retry.
--
-- A sender claims: it moves next_attempt_at ahead and counts the attempt, commits, sends, and records what came of it. So
-- nothing is locked while a receiver responds, two senders do not take the same event, and one that dies in
-- between leaves an event that is due again after the lease. It may then be sent twice, under the same event_id.

-- name: announce_quarantine
-- Say which organizations have instances that this run quarantined or held and the run before did not: one event for each kind.
insert into billing_events (kind, organization_id, run_id, occurred_at, payload)
select kind, organization_id, %(run_id)s, %(as_of)s,
    jsonb_build_object('instances', count(distinct instance_id),
        'first', (array_agg(jsonb_build_object('instanceId', instance_id, 'label', label, 'reason', reason, 'detail', detail)
            order by instance_id, segment_id))[:20])
from (
    select case when reason = 'held' then 'instance_held' else 'instance_quarantined' end as kind, *
    from billing_quarantine
    where first_seen_at = %(as_of)s and run_id = %(run_id)s
      and organization_id between %(first_organization)s and %(last_organization)s
) fresh
where not exists (select from billing_events told where told.organization_id = fresh.organization_id
                  and told.kind = fresh.kind and told.occurred_at = %(as_of)s)
group by kind, organization_id
order by organization_id;

-- name: announce_hold
-- Say that a run is held, unless it only repeats a hold that is not released yet.
insert into billing_events (kind, organization_id, run_id, occurred_at, payload)
select 'run_held', organization_id, id, as_of, jsonb_build_object('reason', %(error_message)s::text)
from billing_runs
where id = %(run_id)s and released_at is null
  and not exists (
    select from billing_runs held
    where held.outcome = 'held' and held.held_by is null and held.released_at is null and held.id < %(run_id)s
      and not exists (select from billing_runs later where later.outcome = 'completed' and later.id > held.id
                      and later.organization_id is null));

-- name: expire_stale_events
-- Give up events without an attempt for too long: a receiver that is configured today must not act on last month.
update billing_events
set dead_at = coalesce(%(now)s, billing_clock()), last_error = 'it was too old to be sent when a webhook was configured'
where delivered_at is null and dead_at is null and attempts = 0
  and next_attempt_at <= coalesce(%(now)s, billing_clock()) - %(stale_hours)s * interval '1 hour'
  and occurred_at <= coalesce(%(now)s, billing_clock()) - %(stale_hours)s * interval '1 hour';

-- name: claim_events
-- Claim some events that are due, the oldest of each organization: a later one waits until it is delivered, dead, or has
-- failed a few times, so that one event that a receiver cannot digest does not silence an organization for a day.
with clock as materialized (
    select coalesce(%(now)s, billing_clock()) as at
),
due as materialized (
    select id
    from billing_events event
    where delivered_at is null and dead_at is null and next_attempt_at <= (select at from clock)
      and not exists (
        select from billing_events earlier
        where earlier.organization_id = event.organization_id and earlier.id < event.id
          and earlier.delivered_at is null and earlier.dead_at is null and earlier.attempts < %(attempts_in_order)s)
    order by next_attempt_at, id
    limit %(limit)s
    for update skip locked
)
update billing_events event
set attempts = attempts + 1, next_attempt_at = clock.at + %(lease_seconds)s * interval '1 second'
from due, clock
where event.id = due.id
returning event.id, event_id, kind, organization_id, wallet_id, run_id, occurred_at, payload, attempts;

-- name: record_delivered
-- Record a delivered event.
update billing_events
set delivered_at = coalesce(%(now)s, billing_clock()), dead_at = null, last_error = null
where id = %(id)s and delivered_at is null;

-- name: record_failed
-- Record a failed attempt: schedule the next, or give up.
update billing_events
set last_error = %(error)s,
    next_attempt_at = coalesce(%(now)s, billing_clock()) + coalesce(%(pause_seconds)s, 0) * interval '1 second',
    dead_at = case when %(pause_seconds)s::float8 is null then coalesce(%(now)s, billing_clock()) end
where id = %(id)s and delivered_at is null and attempts = %(attempts)s;

-- name: release_events
-- Release claimed events that were not attempted because the time was up.
update billing_events
set attempts = attempts - 1, next_attempt_at = coalesce(%(now)s, billing_clock())
where id = any (%(ids)s) and delivered_at is null and dead_at is null and attempts > 0;

-- name: waiting_events
-- Number of waiting events, optionally of one organization, and when the first is due.
select count(*), min(next_attempt_at) from billing_events
where delivered_at is null and dead_at is null and (%(organization)s::uuid is null or organization_id = %(organization)s);

-- name: revive_event
-- Try one event again, from now, whether it is dead, waits or was delivered.
update billing_events
set dead_at = null, delivered_at = null, attempts = 0, next_attempt_at = billing_clock()
where id = %(id)s
returning kind;

-- name: revive_dead_events
-- Try all dead events again, from now.
update billing_events set dead_at = null, attempts = 0, next_attempt_at = billing_clock()
where dead_at is not null;

-- name: notify_events
-- Wake the senders.
notify billing_events;

-- name: list_events
-- The newest events, of one state, kind or organization if wanted.
select id, event_id, kind, organization_id, wallet_id, run_id, occurred_at, payload, attempts, next_attempt_at, delivered_at,
    dead_at, last_error, (select name from organizations where organizations.id = organization_id) as organization,
    case when delivered_at is not null then 'delivered' when dead_at is not null then 'dead' else 'waiting' end as state
from billing_events
where (not %(dead)s or dead_at is not null)
  and (%(kind)s::text is null or kind = %(kind)s)
  and (%(organization)s::uuid is null or organization_id = %(organization)s)
order by id desc
limit %(limit)s;
