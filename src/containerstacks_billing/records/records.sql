-- Lists of records, page by page. Each is read in the order of an index, from the key that the page before ended with, so the last
-- page of ten million rows costs as much as the first. Every statement is asked for one row more than the page holds.

-- part: shown_organization
-- Organizations with the wallet that pays: the oldest in the currency of billing.
shown_organization as (
    select organization.id as organization_id, left(name, 200) as name, left(slug, 200) as slug,
        organization.created_at, wallet.id as wallet_id, wallet.balance, wallet.billing_carry, left(wallet.currency, 8) as currency,
        wallet.past_due_since, runway.burn_per_hour, runway.empties_at,
        lower(organization.name) collate "C" as place
    from chosen
    join organizations organization on organization.id = chosen.id
    left join lateral (
        select * from wallets
        where wallets.organization_id = organization.id and upper(wallets.currency) = %(currency)s
        order by wallets.created_at, wallets.id limit 1
    ) wallet on true
    left join billing_runways runway on runway.organization_id = organization.id and runway.wallet_id = wallet.id
)

-- name: organizations_by_name
-- Organizations in the order of their names, of those whose name begins with a text if wanted.
with chosen as materialized (
    select id from organizations
    where (%(pattern)s::text is null or lower(name) collate "C" like lower(%(pattern)s::text))
      and (%(after_name)s::text is null
           or (lower(name) collate "C", id) > (%(after_name)s::text, %(after_id)s::uuid))
    order by lower(name) collate "C", id
    limit %(limit)s
),
-- include: shown_organization
select * from shown_organization order by place, organization_id;

-- name: organization_by_id
-- One organization.
with chosen as (select id from organizations where id = %(id)s),
-- include: shown_organization
select * from shown_organization;

-- name: instances_by_id
-- Instances in the order of their ids, of one organization if wanted; a date of another age is null.
select id as instance_id, organization_id, left(label, 200) as label, status, plan_id as plan,
    case when created_at between '1900-01-01' and '9998-01-01' then created_at end as created_at,
    case when coalesce(last_billed_at, created_at) between '1900-01-01' and '9998-01-01'
         then coalesce(last_billed_at, created_at) end as billed_until
from vps_instances
where (%(organization)s::uuid is null or organization_id = %(organization)s)
  and (%(after)s::uuid is null or id > %(after)s)
  and (%(id)s::uuid is null or id = %(id)s)
order by id
limit %(limit)s;

-- name: charges_of_organization
-- The charges and the host's own rows of an organization in a span, the newest first; the unique key of charges has this order.
select id as charge_id, organization_id, vps_instance_id as instance_id, plan_id, billing_period_start as starts_at,
    billing_period_end as ends_at, hourly_rate, total_amount as amount, status, past_due_since, payment_transaction_id as entry_id,
    run_id
from vps_billing_cycles
where organization_id = %(organization)s
  and billing_period_start >= %(from)s and billing_period_start < %(until)s
  and (%(instance)s::uuid is null or vps_instance_id = %(instance)s)
  and (%(after_start)s::timestamptz is null
       or (billing_period_start, vps_instance_id, id) < (%(after_start)s, %(after_instance)s::uuid, %(after_id)s::uuid))
  and billing_period_end < '9998-01-01'
order by billing_period_start desc, vps_instance_id desc, id desc
limit %(limit)s;

-- name: entries_of_organization
-- The ledger entries of an organization, the newest first. They are found by organization and sorted: an hour adds one, whatever
-- the number of instances.
select id as entry_id, organization_id, amount, left(currency, 8) as currency, status, left(payment_method, 80) as payment_method,
    left(provider_transaction_id, 200) as reference, left(description, 400) as description, created_at as posted_at
from payment_transactions
where organization_id = %(organization)s
  and created_at between '1900-01-01' and '9998-01-01'
  and (%(after_at)s::timestamptz is null or (created_at, id) < (%(after_at)s, %(after_id)s::uuid))
order by created_at desc, id desc
limit %(limit)s;

-- name: moved_since
-- What the completed ledger entries of an organization add up to that come before a page of them, which is newest first.
select coalesce(sum(amount), 0) as amount
from payment_transactions
where organization_id = %(organization)s and status = 'completed' and amount <> 'NaN'
  and (created_at, id) >= (%(after_at)s, %(after_id)s::uuid);

-- name: moved_by_day
-- What the completed ledger entries of an organization add up to by day, within 31 days: debits, and what was added.
select date_trunc('day', created_at, 'UTC') as starts_at,
    coalesce(-sum(amount) filter (where amount < 0), 0) as debited, coalesce(sum(amount) filter (where amount > 0), 0) as added
from payment_transactions
where organization_id = %(organization)s and status = 'completed' and amount <> 'NaN'
  and created_at >= date_trunc('day', billing_clock(), 'UTC') - interval '30 days' and created_at <= billing_clock()
group by 1
order by 1;

-- name: runways_by_end
-- Wallets in the order in which they are empty; those that owe stand before all others. Wallets without an end are left out.
select runway.organization_id, left(organizations.name, 200) as name, runway.wallet_id, balance, billing_carry, currency, burn_per_hour,
    empties_at, (extract(epoch from empties_at - billing_clock()) / 3600)::float8 as hours_left, level, wallets.past_due_since,
    runway.updated_at
from (
    select * from billing_runways
    where empties_at is not null
      and (%(below_hours)s::float8 is null
           or empties_at <= billing_clock() + least(%(below_hours)s::float8, 876000) * interval '1 hour')
      and (%(after_end)s::timestamptz is null
           or (empties_at, organization_id, wallet_id) > (%(after_end)s, %(after_organization)s::uuid, %(after_wallet)s::uuid))
      and (not %(past_due)s or past_due_since is not null)
    order by empties_at, organization_id, wallet_id
    limit %(limit)s
) runway
join wallets on wallets.id = runway.wallet_id
left join organizations on organizations.id = runway.organization_id
order by empties_at, runway.organization_id, runway.wallet_id;

-- name: left_out_by_age
-- Quarantined and held instances, the longest first.
select reason, left(detail, 2000) as detail, first_seen_at, due_hours, quarantine.organization_id,
    left(organizations.name, 200) as organization, instance_id, segment_id, left(label, 200) as label
from billing_quarantine quarantine
left join organizations on organizations.id = quarantine.organization_id
where (%(organization)s::uuid is null or quarantine.organization_id = %(organization)s)
  and (%(reason)s::text is null or reason = %(reason)s)
  and (%(after_at)s::timestamptz is null or (first_seen_at, quarantine.organization_id, instance_id, segment_id)
       > (%(after_at)s, %(after_organization)s::uuid, %(after_instance)s::uuid, %(after_segment)s::bigint))
order by first_seen_at, quarantine.organization_id, instance_id, segment_id
limit %(limit)s;

-- name: decisions_by_time
-- Who decided what about whose money, the newest first: held hours and discrepancies (1), corrected prices (2), released runs (3),
-- reversals, credits and repayments (4).
-- Each gives a page of its own, of which the newest are shown; one instant is ordered by these numbers. A correction shows what it
-- changed so far: of the organization if one is wanted, or of all.
with decided as (
    (select 1 as origin, decided_at, case when decision in ('accept', 'restore') then 'discrepancy' else 'hours' end as kind,
        id as number, decision, organization_id, instance_id, segment_id, charge_until, waived_from, waived_to, check_name,
        wallet_id, amount, message, decided_by, reason, null::uuid as plan_id
     from billing_decisions
     where (%(organization)s::uuid is null or organization_id = %(organization)s)
       and (%(before)s::timestamptz is null
            or (decided_at, id) < (%(before)s, case when %(before_origin)s::bigint > 1 then %(largest)s::bigint
                when %(before_origin)s::bigint = 1 then %(before_number)s::bigint else 0 end))
     order by decided_at desc, id desc limit %(limit)s)
    union all
    (select 2, decided_at, 'price', id, 'correct', null, null, null, null, null, null, null, null, null, null, decided_by, reason, plan_id
     from billing_price_corrections
     where (%(organization)s::uuid is null or id = any (array(
            select distinct correction_id from billing_adjustments where organization_id = %(organization)s)))
       and (%(before)s::timestamptz is null
            or (decided_at, id) < (%(before)s, case when %(before_origin)s::bigint > 2 then %(largest)s::bigint
                when %(before_origin)s::bigint = 2 then %(before_number)s::bigint else 0 end))
     order by decided_at desc, id desc limit %(limit)s)
    union all
    (select 3, released_at, 'run', id, 'release', null, null, null, null, null, null, null, null, null, null, released_by, release_reason, null
     from billing_runs
     where outcome = 'held' and held_by is null and released_at is not null and %(organization)s::uuid is null
       and (%(before)s::timestamptz is null
            or (released_at, id) < (%(before)s, case when %(before_origin)s::bigint > 3 then %(largest)s::bigint
                when %(before_origin)s::bigint = 3 then %(before_number)s::bigint else 0 end))
     order by released_at desc, id desc limit %(limit)s)
    union all
    (select 4, decided_at, kind, id, mode, null, null, null, null, null, null, null, null, null, null, decided_by, reason, null
     from billing_adjustment_orders
     where (%(organization)s::uuid is null or id = any (array(
            select distinct order_id from billing_adjustments where organization_id = %(organization)s)))
       and (%(before)s::timestamptz is null
            or (decided_at, id) < (%(before)s, case when %(before_origin)s::bigint > 4 then %(largest)s::bigint
                when %(before_origin)s::bigint = 4 then %(before_number)s::bigint else 0 end))
     order by decided_at desc, id desc limit %(limit)s)
),
shown as materialized (
    select * from decided order by decided_at desc, origin desc, number desc limit %(limit)s
)
select origin, number as decision_id, kind, decision, shown.organization_id, left(organizations.name, 200) as organization,
    shown.instance_id, left(vps_instances.label, 200) as label, segment_id, charge_until, waived_from, waived_to, check_name, wallet_id,
    case when kind = 'price' or origin = 4 then adjusted.amount else shown.amount end as amount,
    shown.plan_id, left(vps_plans.name, 200) as plan, case when kind = 'run' then number end as run_id,
    left(message, 2000) as message, shown.decided_at, left(shown.decided_by, 255) as decided_by,
    left(shown.reason, 1000) as reason
from shown
left join organizations on organizations.id = shown.organization_id
left join vps_instances on vps_instances.id = shown.instance_id
left join vps_plans on vps_plans.id = shown.plan_id
left join lateral (
    select coalesce(sum(adjustment.amount), 0) as amount from billing_adjustments adjustment
    where case when kind = 'price' then adjustment.correction_id = number when origin = 4 then adjustment.order_id = number end
      and (%(organization)s::uuid is null or adjustment.organization_id = %(organization)s)
) adjusted on true
order by decided_at desc, origin desc, number desc;

-- name: runs_by_number
-- Runs, the newest first: of an outcome, of a trigger, begun in a span.
with
-- include: run_record
select * from record
where id < %(before)s
  and (%(outcome)s::text is null or case %(outcome)s when 'open' then outcome is null else outcome = %(outcome)s end)
  and (%(trigger)s::text is null or trigger = %(trigger)s)
  and (%(from)s::timestamptz is null or started_at >= %(from)s)
  and (%(until)s::timestamptz is null or started_at < %(until)s)
order by id desc
limit %(limit)s;

-- name: run_by_number
-- One run.
with
-- include: run_record
select * from record where id = %(run_id)s;

-- name: hold_of_run
-- What a held run was held by, who released it and why; the fleet that the run saw.
select held_by, released_at, left(released_by, 255) as released_by, left(release_reason, 1000) as release_reason, fencing_token,
    fleet_instances, fleet_hourly_rate
from billing_runs where id = %(run_id)s;

-- name: events_by_number
-- Events for the host, the newest first, and how their delivery stands.
select id, event_id, kind, organization_id, wallet_id, run_id, occurred_at, payload, attempts, next_attempt_at, delivered_at,
    dead_at, left(last_error, 2000) as last_error,
    (select left(name, 200) from organizations where organizations.id = organization_id) as organization,
    case when delivered_at is not null then 'delivered' when dead_at is not null then 'dead' else 'waiting' end as state
from billing_events
where id < %(before)s
  and (%(kind)s::text is null or kind = %(kind)s)
  and (%(organization)s::uuid is null or organization_id = %(organization)s)
  and case %(state)s::text
      when 'dead' then dead_at is not null
      when 'delivered' then delivered_at is not null
      when 'waiting' then delivered_at is null and dead_at is null
      else true end
order by id desc
limit %(limit)s;
