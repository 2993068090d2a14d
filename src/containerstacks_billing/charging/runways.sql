-- Runways: when each paying wallet is empty if nothing changes, and the events for the host.
--
-- What a wallet can still pay is its balance, less the carry (billed already, below a cent), less what its instances have used
-- since their watermarks and no run has charged yet. Divided by what they burn per hour that is the runway. Because the
-- uncharged time counts, the instant at which a steady wallet is empty stays the same from run to run, and so a steady
-- fleet is read and not written.
--
-- A wallet that owes is empty since it fell short. One that burns nothing has no end. Instances that are left out (held,
-- quarantined) burn nothing until they are repaired or released, since nothing is charged for them until then.

-- name: rates_in_force
-- The names of plans and what they cost per hour now, in hundred-millionths: whole numbers, whose sum is exact in floating
-- point too, and fast.
with
-- include: plan_rates
select name, (hourly_rate * 100000000)::bigint, (hourly_rate_with_backups * 100000000)::bigint
from plan_rate
where on_sale and valid_from <= %(as_of)s and %(as_of)s < valid_to;

-- part: announced_marks
-- Since when a payer is past due by a cent or more, which is what is announced: a host suspends on that event. A few hundred
-- charges are enough to tell.
announced_mark as (
    select organization_id, past_due_since
    from payer
    where past_due_since is not null
      and (select coalesce(sum(total_amount), 0) from (
            select total_amount from vps_billing_cycles charge
            where charge.organization_id = payer.organization_id and status = 'failed' and run_id is not null
            limit 500
          ) sample) >= 0.01
)

-- part: metered
-- The billable instances of the organizations, with a rate if they count: not if they are quarantined or held. They are not filtered
-- out by their watermark, because the planner takes such conditions to be rare and would sort a million rows. The rates come
-- as arrays: a common table expression would keep the instances from being read in parallel.
metered as not materialized (
    select instance.organization_id, watermark,
        case when watermark between %(as_of)s - (%(max_catch_up_hours)s + 1) * interval '1 hour'
                    and %(as_of)s + interval '1 hour'
                and (rated_until is null or watermark >= rated_until)
             then case when billing_has_backups(instance) then with_backups else plain end end as rate
    from vps_instances instance
    join unnest(%(plan_names)s::text[], %(rates)s::float8[], %(rates_with_backups)s::float8[])
        as plan (name, plain, with_backups) on plan.name = instance.plan_id,
    lateral (select coalesce(last_billed_at, created_at) as watermark) at
    where instance.organization_id between %(first_organization)s and %(last_organization)s
      and (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s))
)

-- name: changed_runways
-- The wallets whose runway may differ from what is known of it, and whether it does: level, burn, past-due mark, or the end
-- by more than a minute. A known wallet that burns and owes nothing any more, or pays no longer, is gone.
--
-- First a look at every wallet without the uncharged time, which after a run is less than an hour of each instance (and under
-- PARTIAL_HOUR=full up to an hour ahead): where neither an hour more nor less makes a difference, and the end lies where it
-- was known to be, give or take that hour, nothing changed. Only what is left is computed to the second, through the
-- index. So a million instances are added up by organization and nothing more.
with
-- include: payers, announced_marks, metered
,
burn as (
    select organization_id, sum(rate)::bigint as rate from metered group by organization_id
),
current_runway as (
    select payer.organization_id, payer.wallet_id, balance, billing_carry, mark.past_due_since, rate,
        coalesce(rate, 0) * 0.00000001 as burn_per_hour,
        available * 100000000 as available,
        case when rate > 0 and mark.past_due_since is null and balance between -100000000000 and 100000000000
             then (available * 100000000)::float8 / rate end as hours_at_most
    from payer
    left join burn using (organization_id)
    left join announced_mark mark using (organization_id)
    where rate > 0 or mark.past_due_since is not null
),
suspect as (
    select coalesce(current_runway.organization_id, known.organization_id) as organization_id,
        coalesce(current_runway.wallet_id, known.wallet_id) as wallet_id, current_runway.wallet_id is null as gone,
        balance, billing_carry, current_runway.past_due_since, rate, current_runway.burn_per_hour, available, hours_at_most,
        known.wallet_id is not null as is_known, known.level as known_level, known.burn_per_hour as known_burn,
        known.empties_at as known_end, known.past_due_since as known_mark
    from current_runway
    full join (
        select * from billing_runways where organization_id between %(first_organization)s and %(last_organization)s
    ) known on known.organization_id = current_runway.organization_id and known.wallet_id = current_runway.wallet_id
    where current_runway.wallet_id is null or known.wallet_id is null
       or current_runway.burn_per_hour <> known.burn_per_hour
       or current_runway.past_due_since is distinct from known.past_due_since
       or billing_runway_level(hours_at_most - 1) is distinct from known.level and hours_at_most is not null
       or billing_runway_level(hours_at_most + 1) is distinct from known.level and hours_at_most is not null
       or abs(extract(epoch from known.empties_at - %(as_of)s)::float8 / 3600 - hours_at_most) > 1
       or known.empties_at is null and hours_at_most < 876000
    order by 1, 2
    limit %(limit)s
),
looked_at as materialized (
    select suspect.*, case
        when hours_at_most is not null then (available::float8 - (
            select coalesce(sum(metered.rate * date_part('epoch', %(as_of)s - watermark) / 3600), 0)
            from metered where metered.organization_id = suspect.organization_id)) / suspect.rate
        when rate > 0 and past_due_since is not null then 0 end as hours_left
    from suspect
),
runway as (
    select looked_at.*, billing_runway_level(hours_left) as level,
        case when abs(hours_left) < 876000
             then coalesce(past_due_since, %(as_of)s + hours_left * interval '1 hour') end as empties_at
    from looked_at
)
select organization_id, wallet_id, gone, (past_due_since is null) <> (known_mark is null) as mark_is_news,
    gone or not is_known
        or level is distinct from known_level or burn_per_hour <> known_burn or past_due_since is distinct from known_mark
        or (empties_at between known_end - interval '1 minute' and known_end + interval '1 minute'
            or coalesce(empties_at, known_end) is null) is not true as changed,
    burn_per_hour, empties_at, level, known_level, past_due_since,
    case when level is not null then jsonb_build_object(
        'balance', billing_money_text(balance), 'carry', billing_money_text(billing_carry), 'currency', %(currency)s::text,
        'burnPerHour', billing_money_text(burn_per_hour), 'emptiesAt', billing_instant_text(empties_at),
        'hoursLeft', billing_money_text(round(greatest(hours_left, 0)::numeric, 2)),
        'pastDueSince', billing_instant_text(past_due_since))::text end as payload
from runway
order by 1, 2;

-- name: forget_runways
-- Remove the runways of wallets that are gone.
delete from billing_runways
using unnest(%(organizations)s::uuid[], %(wallets)s::uuid[]) as gone (organization_id, wallet_id)
where billing_runways.organization_id = gone.organization_id and billing_runways.wallet_id = gone.wallet_id;

-- name: keep_runways
-- Keep what changed. The level is what the events of this transaction announce.
insert into billing_runways (organization_id, wallet_id, burn_per_hour, empties_at, level, past_due_since, updated_at)
select organization_id, wallet_id, burn_per_hour, empties_at, level, past_due_since, %(as_of)s
from unnest(%(organizations)s::uuid[], %(wallets)s::uuid[], %(burns)s::numeric[], %(empties)s::timestamptz[],
    %(levels)s::smallint[], %(past_due)s::timestamptz[])
    as changed (organization_id, wallet_id, burn_per_hour, empties_at, level, past_due_since)
on conflict (organization_id, wallet_id) do update
set burn_per_hour = excluded.burn_per_hour, empties_at = excluded.empties_at, level = excluded.level,
    past_due_since = excluded.past_due_since, updated_at = excluded.updated_at;

-- name: announce_crossings
-- One event for every threshold that a runway has come down to and had not before; the longest first.
insert into billing_events (kind, organization_id, wallet_id, run_id, occurred_at, payload)
select 'runway_' || threshold::text || 'h', organization_id, wallet_id, %(run_id)s, %(as_of)s,
    payload || jsonb_build_object('thresholdHours', threshold)
from unnest(%(organizations)s::uuid[], %(wallets)s::uuid[], %(levels)s::smallint[], %(known_levels)s::smallint[],
    %(payloads)s::jsonb[]) as changed (organization_id, wallet_id, level, known_level, payload)
join (values (72), (24), (3)) as known (threshold)
    on threshold >= level and (known_level is null or threshold < known_level)
order by organization_id, threshold desc;

-- part: news_of_marks
-- Payers whose past-due mark is not the one that was announced.
news as (
    select payer.organization_id, payer.wallet_id, balance, billing_carry, mark.past_due_since,
        known.past_due_since as known_since
    from payer
    left join announced_mark mark using (organization_id)
    left join (
        select * from billing_runways where organization_id between %(first_organization)s and %(last_organization)s
    ) known on known.organization_id = payer.organization_id and known.wallet_id = payer.wallet_id
    where (mark.past_due_since is null) <> (known.past_due_since is null)
)

-- name: announce_past_due
-- Say who has gone past due and who has recovered since it was last said; after `clear_past_due`, in its transaction.
insert into billing_events (kind, organization_id, wallet_id, run_id, occurred_at, payload)
with
-- include: payers, announced_marks, news_of_marks
select case when past_due_since is null then 'recovered' else 'past_due' end, organization_id, wallet_id, %(run_id)s, %(as_of)s,
    jsonb_build_object(
        'balance', billing_money_text(balance), 'carry', billing_money_text(billing_carry), 'currency', %(currency)s::text,
        'pastDue', billing_money_text((
            select coalesce(sum(total_amount), 0) from vps_billing_cycles charge
            where charge.organization_id = news.organization_id and charge.status = 'failed' and charge.run_id is not null)),
        'pastDueSince', billing_instant_text(coalesce(past_due_since, known_since)))
from news
order by organization_id;

-- name: note_announced_marks
-- Remember what `announce_past_due` has said.
insert into billing_runways (organization_id, wallet_id, past_due_since, updated_at)
with
-- include: payers, announced_marks, news_of_marks
select organization_id, wallet_id, past_due_since, %(as_of)s from news
on conflict (organization_id, wallet_id) do update
set past_due_since = excluded.past_due_since, updated_at = excluded.updated_at;

-- name: list_runways
-- Who is empty when, soonest first; who owes comes before all.
select runway.organization_id, organizations.name, wallet_id, balance, billing_carry, currency, burn_per_hour, empties_at,
    (extract(epoch from empties_at - billing_clock()) / 3600)::float8 as hours_left, level, wallets.past_due_since,
    runway.updated_at
from billing_runways runway
join wallets on wallets.id = runway.wallet_id
left join organizations on organizations.id = runway.organization_id
cross join (select %(below_hours)s::float8 as below_hours) bound
where below_hours is null or wallets.past_due_since is not null
   or empties_at <= billing_clock() + below_hours * interval '1 hour'
order by wallets.past_due_since, empties_at, runway.organization_id
limit %(limit)s;
