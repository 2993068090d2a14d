-- Comparing the books: every statement finds discrepancies of one kind, and an empty answer is the proof that there are none.
--
-- All of them read one snapshot (REPEATABLE READ, read-only), so a run that commits in between is either wholly there or not
-- at all. They recompute from the rows what must hold, and share nothing with the statements of charging/ but
-- billing_amount(): a fault there must not hide itself here. A statement returns at most %(shown)s rows per check, each with
-- the identifiers to find it by, and counts them all in `found`. Ours are the charges with a run_id and the ledger entries
-- that runs wrote; everything else is the host's. TimeZone is UTC, so an instant in a message is readable everywhere.
--
-- %(whole)s is false when one organization was asked for: then first and last organization are that one.

-- part: chosen_instance
-- The instances of one organization, also those that left it; their hours with other organizations count as well.
chosen_instance as (
    select id as instance_id from vps_instances where organization_id between %(first_organization)s and %(last_organization)s
    union
    select instance_id from billing_usage_segments
    where organization_id between %(first_organization)s and %(last_organization)s
    union
    select vps_instance_id from vps_billing_cycles
    where run_id is not null and organization_id between %(first_organization)s and %(last_organization)s
)

-- part: own_entry
-- The ledger entries that runs and corrections wrote. What they say about the wallet is taken only where it is a number.
own_entry as (
    select id as entry_id, organization_id, amount, status,
        case when jsonb_typeof(metadata -> 'carry_before') = 'number' then (metadata ->> 'carry_before')::numeric end
            as carry_before,
        case when jsonb_typeof(metadata -> 'balance_before') = 'number' then (metadata ->> 'balance_before')::numeric end
            as balance_before,
        case when jsonb_typeof(metadata -> 'balance_after') = 'number' then (metadata ->> 'balance_after')::numeric end
            as balance_after
    from payment_transactions
    where (provider_transaction_id ~ '^billing-(run|adjustment|reversal|credit|audit)-'
           or payment_method = 'wallet_debit' and jsonb_typeof(metadata -> 'run_id') = 'number')
      and organization_id between %(first_organization)s and %(last_organization)s
)

-- part: both_charged
-- Hours that the host's scheduler charged since our first run and that we charged too, and what it took for them. An overlap of a
-- millisecond or less is none: the host's instants are JavaScript's and have no more digits.
began as (select min(started_at) as at from billing_runs),
both_charged as (
    select organization_id, instance_id, cycle_id, starts_at, ends_at, extract(epoch from ends_at - starts_at) / 3600 as hours,
        extract(epoch from ends_at - starts_at) * amount_per_second as amount
    from (
        select cycle.organization_id, cycle.vps_instance_id as instance_id, cycle.id as cycle_id,
            greatest(cycle.billing_period_start, charge.billing_period_start) as starts_at,
            least(cycle.billing_period_end, charge.billing_period_end) as ends_at,
            cycle.total_amount / extract(epoch from cycle.billing_period_end - cycle.billing_period_start)
                as amount_per_second
        from began
        join vps_billing_cycles cycle on cycle.created_at >= began.at
        join vps_billing_cycles charge on charge.vps_instance_id = cycle.vps_instance_id
            and charge.billing_period_start < cycle.billing_period_end and charge.billing_period_end > cycle.billing_period_start
        where cycle.run_id is null and cycle.status = 'billed' and charge.run_id is not null and charge.status <> 'failed'
          and isfinite(cycle.billing_period_start) and isfinite(cycle.billing_period_end)
          and cycle.billing_period_start < cycle.billing_period_end
          and cycle.organization_id between %(first_organization)s and %(last_organization)s
    ) overlapping
    where ends_at - starts_at > interval '1 millisecond'
)

-- name: verify_scope
-- Read the clock of the snapshot's reader, and count what there is to examine.
select billing_clock() as read_at,
    (select count(*) from vps_billing_cycles
     where run_id is not null and organization_id between %(first_organization)s and %(last_organization)s) as charges,
    (select count(*) from vps_instances
     where organization_id between %(first_organization)s and %(last_organization)s) as instances,
    (select count(*) from wallets
     where organization_id between %(first_organization)s and %(last_organization)s) as wallets,
    (select count(*) from payment_transactions
     where starts_with(provider_transaction_id, 'billing-')
       and organization_id between %(first_organization)s and %(last_organization)s) as entries,
    (select count(*) from billing_runs
     where outcome is not null
       and (%(whole)s or organization_id between %(first_organization)s and %(last_organization)s)) as runs,
    (select count(*) from billing_closed_segments()
     where organization_id between %(first_organization)s and %(last_organization)s) as segments,
    (select count(*) from plan_price_versions) as prices,
    (select count(*) from billing_policies) as policies,
    (select count(*) from billing_adjustments
     where order_id is not null and organization_id between %(first_organization)s and %(last_organization)s) as adjustments;

-- name: find_overlaps_and_gaps
-- Lay the hours of each instance side by side, under all its organizations: an hour may not be charged that is charged or settled
-- already, and between the first rated instant and the watermark no hour may be missing.
--
-- An event is a charge, a segment that was waived, closed without a charge or is not charged yet, or one of two marks without
-- length: where metering began, and the watermark. Walking through them in order, an event that starts before the end of what came before overlaps,
-- and one that starts after it leaves a gap. A gap in front of a beginning is none: the instance did not exist. What the
-- host billed itself, and what waits as damaged, explains a gap; it is looked up for gaps alone.
with
-- include: chosen_instance
,
event as (
    select vps_instance_id as instance_id, organization_id, id as charge_id, billing_period_start as starts_at,
        billing_period_end as ends_at, false as begins
    from vps_billing_cycles
    where run_id is not null
      and (%(whole)s or vps_instance_id in (select instance_id from chosen_instance))
    union all
    select instance_id, organization_id, null, case when outcome = 'charged' then charge_until else started_at end, ended_at,
        false
    from billing_closed_segments()
    where case when outcome = 'charged' then charge_until else started_at end < ended_at
      and (outcome is null or outcome not in ('damaged', 'repeated'))
      and (%(whole)s or instance_id in (select instance_id from chosen_instance))
    union all
    select instance_id, organization_id, null, waived_from, waived_to, false
    from billing_decisions
    where waived_from < waived_to and segment_id = 0
      and (%(whole)s or instance_id in (select instance_id from chosen_instance))
    union all
    select id, organization_id, null, rated_from, rated_from, true
    from vps_instances
    where isfinite(rated_from) and (%(whole)s or id in (select instance_id from chosen_instance))
    union all
    select instance_id, organization_id, null, rated_from, rated_from, true
    from billing_usage_segments
    where reason in ('deleted', 're-keyed') and isfinite(rated_from)
      and (%(whole)s or instance_id in (select instance_id from chosen_instance))
    union all
    select id, organization_id, null, stands_at, stands_at, false
    from vps_instances, lateral (
        -- A watermark that is no date, or far in the future, is in quarantine; we answer for what we rated.
        select case when coalesce(last_billed_at, created_at) between '-infinity' and %(read_at)s + interval '1 hour'
                    then coalesce(last_billed_at, created_at) else rated_until end as stands_at
    ) watermark
    where isfinite(stands_at) and (%(whole)s or id in (select instance_id from chosen_instance))
),
remarkable as materialized (
    select *
    from (
        select *, max(ends_at) over earlier as covered_until,
            max(ends_at) filter (where charge_id is not null) over earlier as charged_until,
            lag(charge_id) over in_order as charge_before
        from event
        window in_order as (partition by instance_id order by starts_at, ends_at, begins desc),
            earlier as (in_order rows between unbounded preceding and 1 preceding)
    ) placed
    where starts_at <> covered_until
),
overlap as (
    select *, case when charge_id is null then charged_until else covered_until end as until
    from remarkable
    where ends_at > starts_at and starts_at < case when charge_id is null then charged_until else covered_until end
),
gap as (
    select instance_id, organization_id, covered_until as starts_at, starts_at as ends_at
    from remarkable where starts_at > covered_until and not begins
),
explanation as (
    select vps_instance_id as instance_id, billing_period_start as starts_at, billing_period_end as ends_at
    from vps_billing_cycles
    where run_id is null and status = 'billed'
    union all
    select instance_id, started_at, ended_at from billing_usage_segments where outcome = 'damaged'
),
explained as (
    select gap.instance_id, gap.starts_at, range_agg(tstzrange(explanation.starts_at, explanation.ends_at)) as hours
    from gap
    join explanation on explanation.instance_id = gap.instance_id and explanation.starts_at < gap.ends_at
        and explanation.ends_at > gap.starts_at and explanation.starts_at < explanation.ends_at
    group by gap.instance_id, gap.starts_at
),
unexplained as (
    select gap.instance_id, gap.organization_id,
        unnest(tstzmultirange(tstzrange(gap.starts_at, gap.ends_at)) - coalesce(hours, '{}')) as hours
    from gap left join explained using (instance_id, starts_at)
),
finding as (
    select 'charged-once' as check_name, organization_id, instance_id, coalesce(charge_id, charge_before) as charge_id,
        starts_at, null::timestamptz as hours_from, null::timestamptz as hours_until,
        case when charge_id is null
             then format('the segment from %%s to %%s is settled or due by itself, and charged until %%s as well',
                starts_at, ends_at, until)
             when charge_before is null or charged_until is null or starts_at >= charged_until
             then format('charged from %%s to %%s, which is settled or due by itself until %%s', starts_at, ends_at, until)
             else format('charged from %%s to %%s, which was charged until %%s already, by %%s', starts_at, ends_at, until,
                charge_before) end as message
    from overlap
    union all
    select 'gaps', organization_id, instance_id, null, lower(hours), lower(hours), upper(hours),
        format('from %%s to %%s nothing is charged, past due or explained', lower(hours), upper(hours))
    from unexplained
)
select check_name, organization_id, instance_id, charge_id, hours_from, hours_until, message, found
from (
    select *, count(*) over (partition by check_name) as found,
        row_number() over (partition by check_name order by organization_id, instance_id, starts_at) as place
    from finding
) numbered
where place <= %(shown)s
order by check_name, place;

-- name: find_vanished_instances
-- Find charged instances that are gone without a last segment: until when they ran is not known any more.
select organization_id, vps_instance_id as instance_id,
    format('its row is gone and no segment says until when it ran; its last charge ends at %%s', max(billing_period_end)) as message,
    count(*) over () as found
from vps_billing_cycles charge
where run_id is not null and organization_id between %(first_organization)s and %(last_organization)s
  and not exists (select from vps_instances where id = charge.vps_instance_id)
  and not exists (select from billing_usage_segments
                  where reason in ('deleted', 're-keyed') and instance_id = charge.vps_instance_id)
group by organization_id, vps_instance_id
order by organization_id, vps_instance_id
limit %(shown)s;

-- name: find_misplaced_watermarks
-- Find watermarks that stand before the end of what was charged or rated: a backup was put back, or the host moved them. Those
-- that are no date are in quarantine.
with
-- include: chosen_instance
,
last_charge as (
    select vps_instance_id as instance_id, max(billing_period_end) as charged_until
    from vps_billing_cycles
    where run_id is not null and (%(whole)s or vps_instance_id in (select instance_id from chosen_instance))
    group by vps_instance_id
)
select organization_id, id as instance_id,
    case when charged_until > coalesce(last_billed_at, created_at)
         then format('its watermark %%s stands behind the end of its last charge, %%s, as after the restore of a backup',
            coalesce(last_billed_at, created_at), charged_until)
         else format('its watermark %%s stands behind %%s, until when it was rated',
            coalesce(last_billed_at, created_at), rated_until) end as message,
    count(*) over () as found
from vps_instances left join last_charge on instance_id = id
where organization_id between %(first_organization)s and %(last_organization)s
  and isfinite(coalesce(last_billed_at, created_at))
  and coalesce(last_billed_at, created_at) < greatest(charged_until, rated_until)
order by organization_id, id
limit %(shown)s;

-- name: find_wrong_amounts
-- Find charges whose amount is not their hours at their hourly rate, to the last digit, or that hold no usable numbers.
select organization_id, vps_instance_id as instance_id, id as charge_id, run_id,
    case when expected is null then format('its period from %%s to %%s is none', billing_period_start, billing_period_end)
         when not rate_is_sound then format('its hourly rate %%s is no amount of at most eight decimals', hourly_rate)
         when total_amount is distinct from expected
         then format('its amount is %%s, but %%s to %%s at %%s an hour is %%s', total_amount, billing_period_start,
            billing_period_end, hourly_rate, trim_scale(expected))
         else format('its status is %%s, which no run writes', coalesce(status, 'null')) end as message,
    count(*) over () as found
from (
    select *, coalesce(hourly_rate >= 0 and hourly_rate < 10000000000 and scale(hourly_rate) <= 8, false) as rate_is_sound,
        case when isfinite(billing_period_start) and isfinite(billing_period_end)
                  and billing_period_start < billing_period_end
             then billing_amount(hourly_rate, billing_period_start, billing_period_end) end as expected
    from vps_billing_cycles
    where run_id is not null and organization_id between %(first_organization)s and %(last_organization)s
) charge
where not coalesce(rate_is_sound and total_amount = expected and status in ('billed', 'failed', 'refunded'), false)
order by organization_id, vps_instance_id, billing_period_start
limit %(shown)s;

-- name: find_wrong_rates
-- Find charges with an hour whose rate is not the one of the plan's price in force at the start of that hour.
--
-- A price matters to a charge when one of its hours starts while it is in force; a charge of one rate may span several prices
-- that come to the same. The rate depends on the hours per month of the run. A past-due charge was rated by an earlier run than the one
-- that grew or paid it, so any divisor that a run ever used will do there. A segment says whether there were backups; where
-- none is named either rate is right. An hour that a correction adjusted has the rate of its last adjustment; where a correction
-- could not be posted yet, because a wallet could not bear it, the price that it replaced still counts. An hour that an order
-- set the rate of stands outside the prices, and `find_wrong_orders` examines it. So each charge is
-- compared with its prices at once, and only what does not fit, or was adjusted, is looked at hour by hour.
with
divisor as (select distinct hours_per_month from billing_runs),
price_rate as materialized (
    select plan_id, valid_from, valid_to, hours_per_month,
        round((base_price + coalesce(markup_price, 0)) / hours_per_month, 8) as rate,
        round((base_price + coalesce(markup_price, 0)) / hours_per_month
            + coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0), 8) as rate_with_backups
    from plan_price_versions, divisor
),
charge as (
    select cycle.organization_id, vps_instance_id as instance_id, cycle.id as charge_id, cycle.run_id, cycle.plan_id,
        hourly_rate, billing_period_start as starts_at,
        ceil(extract(epoch from billing_period_end - billing_period_start) / 3600)::integer as hours,
        case when cycle.past_due_since is null then segment.backups end as backups,
        case when cycle.past_due_since is not null then metadata #> '{billing_order,id}' end as set_by,
        case when cycle.past_due_since is null then segment.plan_id end as segment_plan,
        cycle.past_due_since is not null or run.id is null as any_divisor,
        coalesce(run.hours_per_month, (select min(hours_per_month) from divisor)) as hours_per_month
    from vps_billing_cycles cycle
    left join billing_runs run on run.id = cycle.run_id
    left join billing_usage_segments segment on segment.id = cycle.segment_id
    where cycle.run_id is not null and cycle.organization_id between %(first_organization)s and %(last_organization)s
      and isfinite(billing_period_start) and isfinite(billing_period_end) and billing_period_start < billing_period_end
),
suspect as (
    select charge.*, valid_from, price_rate.rate, price_rate.rate_with_backups, first_hour,
        case when valid_to > starts_at + (hours - 1) * interval '1 hour' then hours
             else ceil(extract(epoch from valid_to - starts_at) / 3600)::integer end as last_hour,
        segment_plan <> charge.plan_id::text
            and exists (select from plan_price_versions where plan_id::text = segment_plan) as other_plan
    from charge
    left join price_rate on price_rate.plan_id = charge.plan_id and price_rate.hours_per_month = charge.hours_per_month
        and valid_from <= starts_at + (hours - 1) * interval '1 hour' and starts_at < valid_to,
    lateral (
        select case when valid_from > starts_at then ceil(extract(epoch from valid_from - starts_at) / 3600)::integer
                    else 0 end as first_hour
    ) place
    where (price_rate.rate is null or starts_at + first_hour * interval '1 hour' < valid_to)
      and (not coalesce(case when backups then hourly_rate = rate_with_backups when not backups then hourly_rate = rate
                             else hourly_rate in (rate, rate_with_backups) end, false) and set_by is null
           or segment_plan <> charge.plan_id::text
           or charge_id in (select charge_id from billing_adjustments))
),
wrong_hour as (
    select distinct on (charge_id, valid_from) charge_id, valid_from, hour_start, rate_then
    from suspect
    cross join generate_series(first_hour, last_hour - 1) as number
    cross join lateral (
        select starts_at + number * interval '1 hour' as hour_start
    ) one
    left join lateral (
        select new_rate, order_id from billing_adjustments adjustment
        where adjustment.organization_id = suspect.organization_id and adjustment.charge_id = suspect.charge_id
          and hours_from <= hour_start and hour_start < hours_until
        order by id desc limit 1
    ) adjusted on true, lateral (select coalesce(new_rate, hourly_rate) as rate_then) current
    where order_id is null and (new_rate is not null or set_by is null)
      and not exists (
        select from price_rate fitting
        where fitting.plan_id = suspect.plan_id and fitting.valid_from = suspect.valid_from
          and (any_divisor or fitting.hours_per_month = suspect.hours_per_month)
          and (rate_then = fitting.rate and backups is not true
               or rate_then = fitting.rate_with_backups and backups is not false))
      and not exists (
        select from billing_price_corrections correction, divisor, lateral (
            select (coalesce(old_base_price, 0) + coalesce(old_markup_price, 0)) / divisor.hours_per_month as rate
        ) replaced
        where correction.plan_id = suspect.plan_id and coalesce(unposted_charges, 1) > 0
          and corrected_from <= hour_start and hour_start < corrected_until
          and (any_divisor or divisor.hours_per_month = suspect.hours_per_month)
          and rate_then in (round(replaced.rate, 8), round(replaced.rate + backup_hourly, 8)))
    order by charge_id, valid_from, hour_start
)
select organization_id, instance_id, charge_id, run_id, plan_id,
    case when plan_id is null then 'it names no plan'
         when rate is null then format('its plan has no price at %%s', starts_at)
         when hour_start is not null
         then format('the hour of %%s is charged at %%s, but the price of its plan was %%s', hour_start, rate_then,
            case when backups then rate_with_backups::text when backups is null and rate <> rate_with_backups
                 then format('%%s, or %%s with backups', rate, rate_with_backups) else rate::text end)
         else format('it is charged by another plan than %%s, on which its segment ran', segment_plan) end as message,
    count(*) over () as found
from suspect left join wrong_hour using (charge_id, valid_from)
where rate is null or hour_start is not null or other_plan
order by organization_id, instance_id, starts_at
limit %(shown)s;

-- name: find_wrong_adjustments
-- Find adjustments that are not the difference of two rates over hours of a billed charge.
select adjustment.organization_id, adjustment.instance_id, adjustment.charge_id, adjustment.id as adjustment_id,
    case when charge.id is null then 'it adjusts a charge that is not there, or that no run billed'
         when hours_from < billing_period_start or hours_until > billing_period_end
         then format('it adjusts %%s to %%s, but the charge is for %%s to %%s', hours_from, hours_until, billing_period_start,
            billing_period_end)
         else format('its amount is %%s, but %%s to %%s at %%s instead of %%s an hour is %%s', amount, hours_from, hours_until,
            new_rate, old_rate, trim_scale(expected)) end as message,
    count(*) over () as found
from billing_adjustments adjustment
left join vps_billing_cycles charge on charge.organization_id = adjustment.organization_id
    and charge.id = adjustment.charge_id and charge.run_id is not null and charge.status in ('billed', 'refunded'),
lateral (
    select sign(new_rate) * billing_amount(abs(new_rate), hours_from, hours_until)
        - sign(old_rate) * billing_amount(abs(old_rate), hours_from, hours_until) as expected
) difference
where adjustment.organization_id between %(first_organization)s and %(last_organization)s
  and adjustment.charge_id is not null
  and not coalesce(amount = expected and hours_from >= billing_period_start and hours_until <= billing_period_end, false)
order by adjustment.organization_id, adjustment.id
limit %(shown)s;

-- name: find_wrong_orders
-- Find adjustments of reversals, credits and repayments that give back from another rate than the one that held, or below nothing;
-- that repeat or miss what they undo; or whose order is not there. And past-due charges that an order settled without one.
with
adjustment as (
    select adjustment.*, given.mode, given.undoes, given.scope, charge.hourly_rate, charge.billing_period_start
    from billing_adjustments adjustment
    left join billing_adjustment_orders given on given.id = adjustment.order_id
    left join vps_billing_cycles charge on charge.organization_id = adjustment.organization_id and charge.id = adjustment.charge_id
    where order_id is not null and adjustment.organization_id between %(first_organization)s and %(last_organization)s
),
judged as (
    select *, case
        when mode is null then format('its order %%s is not there', order_id)
        when charge_id is null and amount >= 0 then format('it pays back %%s', -amount)
        when charge_id is null then null
        when rate_before <> old_rate
        then format('it starts from %%s an hour, but %%s stood there', old_rate, rate_before)
        when mode = 'waive' and new_rate <> 0 then format('it waives hours and leaves them at %%s', new_rate)
        when mode = 'credit' and new_rate > old_rate then format('it credits hours and charges %%s instead of %%s', new_rate, old_rate)
        when new_rate < 0 and coalesce((scope ->> 'factor')::numeric, 1) <= 1
        then format('the hours stand at %%s, below nothing', new_rate)
        when mode = 'undo' and not exists (
            select from billing_adjustments undone
            where undone.organization_id = adjustment.organization_id and undone.charge_id = adjustment.charge_id
              and undone.order_id = adjustment.undoes and undone.hours_from <= adjustment.hours_from
              and undone.hours_until >= adjustment.hours_until and undone.new_rate = adjustment.old_rate
              and undone.old_rate = adjustment.new_rate)
          and not exists (
            select from vps_billing_cycles charge
            where charge.organization_id = adjustment.organization_id and charge.id = adjustment.charge_id
              and (charge.metadata #>> '{billing_order,id}')::bigint = adjustment.undoes)
        then 'it undoes what was never done' end as problem
    from adjustment, lateral (
        select coalesce((
            select earlier.new_rate from billing_adjustments earlier
            where earlier.organization_id = adjustment.organization_id and earlier.charge_id = adjustment.charge_id
              and earlier.id < adjustment.id and earlier.hours_from <= adjustment.hours_from
              and earlier.hours_until >= adjustment.hours_until
            order by earlier.id desc limit 1), hourly_rate) as rate_before
    ) before
),
finding as (
    select organization_id, instance_id, charge_id, id as adjustment_id, problem from judged where problem is not null
    union all
    select organization_id, vps_instance_id, charge.id, null,
        format('its rate was set by an order %%s, which is not there', metadata #>> '{billing_order,id}')
    from vps_billing_cycles charge
    where run_id is not null and past_due_since is not null and metadata -> 'billing_order' is not null
      and organization_id between %(first_organization)s and %(last_organization)s
      and not exists (
        select from billing_adjustment_orders given where given.id::text = metadata #>> '{billing_order,id}')
)
select organization_id, instance_id, charge_id, adjustment_id, problem as message, count(*) over () as found
from finding
order by organization_id, adjustment_id
limit %(shown)s;

-- name: find_wrong_carries
-- Find organizations whose billed charges, with their adjustments, are not what was debited and what is carried, or whose carry
-- is not below a cent. Charges have no currency, so the debits and carries of all wallets of an organization count. A
-- difference that was accepted counts as billed.
with
-- include: own_entry
,
billed as (
    select organization_id, sum(total_amount) as amount
    from vps_billing_cycles
    where run_id is not null and status in ('billed', 'refunded')
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
),
adjusted as (
    select organization_id, sum(amount) as amount
    from billing_adjustments
    where organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
),
debited as (
    select organization_id, -sum(amount) as amount from own_entry where status = 'completed' group by organization_id
),
carried as (
    select organization_id, (array_agg(id order by created_at, id))[1] as wallet_id, sum(billing_carry) as amount,
        bool_and(billing_carry >= 0 and billing_carry < 0.01) as is_sound
    from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
),
accepted as (
    select organization_id, sum(amount) as amount
    from billing_decisions
    where decision = 'accept' and check_name = 'carries'
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
)
select organization.id as organization_id, wallet_id,
    case when not is_sound then format('the carry of a wallet is not between zero and one cent: %%s', carried.amount)
         else format('charges of %%s are billed, but %%s were debited and %%s is carried: %%s too %%s', trim_scale(owed),
            trim_scale(paid), coalesce(trim_scale(carried.amount)::text, 'nothing'), trim_scale(abs(paid + rest - owed)),
            case when paid + rest > owed then 'much' else 'little' end) end as message,
    count(*) over () as found
from organizations organization
left join billed on billed.organization_id = organization.id
left join adjusted on adjusted.organization_id = organization.id
left join debited on debited.organization_id = organization.id
left join carried on carried.organization_id = organization.id
left join accepted on accepted.organization_id = organization.id,
lateral (
    select coalesce(billed.amount, 0) + coalesce(adjusted.amount, 0) + coalesce(accepted.amount, 0) as owed,
        coalesce(debited.amount, 0) as paid,
        coalesce(carried.amount, 0) as rest
) compared
where organization.id between %(first_organization)s and %(last_organization)s
  and (owed <> paid + rest or not coalesce(is_sound, true))
order by organization.id
limit %(shown)s;

-- name: find_wrong_balances
-- Find wallets whose balance is not their opening and the sum of their completed ledger entries. An entry names an organization
-- and a currency, not a wallet, so several wallets of a pair are taken together. The successor's hosting wallets are wallets of
-- their own (hosting_wallets), whose entries stand in the same ledger.
with
wallet as (
    select organization_id, upper(currency) as currency, (array_agg(id order by created_at, id))[1] as wallet_id, sum(balance) as balance,
        sum(billing_opening) as opening, count(*) as wallets
    from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id, upper(currency)
),
entry as (
    select organization_id, upper(currency) as currency, sum(amount) as amount
    from payment_transactions
    where status = 'completed' and amount <> 'NaN'
      and ((select to_regclass('hosting_wallets') is null) or metadata ->> 'wallet_type' is distinct from 'hosting')
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id, upper(currency)
)
select wallet.organization_id, wallet_id,
    format('%%s %%s are on %%s, but the opening %%s and the ledger entries %%s make %%s', balance, wallet.currency,
        case when wallets = 1 then 'the wallet' else wallets::text || ' wallets' end, opening,
        coalesce(entry.amount, 0), opening + coalesce(entry.amount, 0)) as message,
    count(*) over () as found
from wallet
left join entry on entry.organization_id = wallet.organization_id and coalesce(entry.currency, '') = coalesce(wallet.currency, '')
where balance is distinct from opening + coalesce(entry.amount, 0)
order by wallet.organization_id, wallet.currency
limit %(shown)s;

-- name: find_wrong_entries
-- Find ledger entries of ours that are not the whole cents of the carry before them and of the charges or adjustments that
-- name them.
with
-- include: own_entry
,
linked as (
    select payment_transaction_id as entry_id, organization_id, sum(total_amount) as amount
    from vps_billing_cycles
    where run_id is not null and payment_transaction_id is not null and status in ('billed', 'refunded')
      and organization_id between %(first_organization)s and %(last_organization)s
    group by payment_transaction_id, organization_id
    union all
    select payment_transaction_id, organization_id, sum(amount)
    from billing_adjustments
    where payment_transaction_id is not null
      and organization_id between %(first_organization)s and %(last_organization)s
    group by payment_transaction_id, organization_id
)
select organization_id, entry_id,
    case when linked.amount is null then format('it debits %%s, but no charge names it', -own_entry.amount)
         when carry_before is null
         then format('it debits %%s for charges of %%s', -own_entry.amount, trim_scale(linked.amount))
         else format('it debits %%s, but a carry of %%s and charges of %%s make %%s', -own_entry.amount,
            trim_scale(carry_before), trim_scale(linked.amount), round(floor((carry_before + linked.amount) * 100) / 100, 2)) end
        as message,
    count(*) over () as found
from own_entry left join linked using (organization_id, entry_id)
where not coalesce(case when carry_before is not null
                        then -own_entry.amount = floor((carry_before + linked.amount) * 100) / 100
                        else abs(own_entry.amount + linked.amount) < 0.01 end, false)
order by organization_id, entry_id
limit %(shown)s;

-- name: find_dangling_links
-- Find charges that name a ledger entry which is not there, or name one although they are past due. With an organization its
-- ledger goes too.
select organization_id, vps_instance_id as instance_id, id as charge_id, payment_transaction_id as entry_id,
    case when status = 'failed' then 'it is past due, and names a ledger entry all the same'
         else 'it is billed, but its organization has no such ledger entry' end as message,
    count(*) over () as found
from vps_billing_cycles charge
where run_id is not null and payment_transaction_id is not null
  and organization_id between %(first_organization)s and %(last_organization)s
  and (status = 'failed'
       or not exists (select from payment_transactions entry
                      where entry.id = charge.payment_transaction_id and entry.organization_id = charge.organization_id)
       and exists (select from organizations where organizations.id = charge.organization_id))
order by organization_id, vps_instance_id, billing_period_start
limit %(shown)s;

-- name: find_wrong_runs
-- Find ended runs whose row says something else than the charges they billed, and charges of a run that is not there. A batch counts an instance once per
-- organization, however many charges it got; the number of the batch stands in the identifier of a new charge, and
-- beside a past-due charge that was paid. A paid one belongs to the run that collected it; one that a correction or an order made
-- free, to none.
with
charged as not materialized (
    select run_id, organization_id, vps_instance_id, total_amount,
        extract(epoch from billing_period_end - billing_period_start) as seconds,
        case when past_due_since is null
             then ('x' || substr(id::text, 10, 4) || substr(id::text, 16, 3))::bit(28)::integer else past_due_batch end as batch
    from vps_billing_cycles
    where run_id is not null and status in ('billed', 'refunded')
      and not (total_amount = 0 and past_due_since is not null
               and (metadata -> 'correction_id' is not null or metadata -> 'billing_order' is not null))
      and isfinite(billing_period_start) and isfinite(billing_period_end)
      and organization_id between %(first_organization)s and %(last_organization)s
),
counted as (
    select run_id, count(*) as instances
    from (select distinct run_id, batch, organization_id, vps_instance_id from charged) instance
    group by run_id
),
summed as (
    select run_id, sum(total_amount) as amount, sum(seconds) / 3600 as hours from charged group by run_id
),
billed as (select * from counted join summed using (run_id))
select run_id, run.organization_id,
    case when run.id is null
         then format('%%s instances were charged %%s in it, but there is no such run', billed.instances, trim_scale(billed.amount))
         else format('it recorded %%s instances, %%s hours and %%s, but its charges are %%s instances, %%s hours and %%s',
            run.instances_billed, trim_scale(round(run.hours, 6)), trim_scale(run.amount), coalesce(billed.instances, 0),
            trim_scale(round(coalesce(billed.hours, 0), 6)), trim_scale(coalesce(billed.amount, 0))) end as message,
    count(*) over () as found
from (select *, id as run_id from billing_runs) run full join billed using (run_id)
where (run.id is null or outcome is not null)
  and (%(whole)s or run.organization_id between %(first_organization)s and %(last_organization)s)
  and not coalesce(run.instances_billed = coalesce(billed.instances, 0) and run.amount = coalesce(billed.amount, 0)
      and abs(run.hours - coalesce(billed.hours, 0)) < 0.000001, false)
order by run_id
limit %(shown)s;

-- name: find_wrong_marks
-- Find wallets that are marked past due and owe nothing, and organizations that owe while no wallet of theirs says so.
with
past_due as (
    select organization_id, sum(total_amount) as amount, count(*) as charges
    from vps_billing_cycles
    where status = 'failed' and run_id is not null
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
),
mark as (
    select organization_id, id as wallet_id, past_due_since
    from wallets
    where past_due_since is not null and organization_id between %(first_organization)s and %(last_organization)s
)
select organization_id, wallet_id,
    case when wallet_id is null
         then format('%%s charges of %%s are past due, but no wallet is marked so', charges, trim_scale(amount))
         else format('the wallet is marked past due since %%s, but owes nothing', past_due_since) end as message,
    count(*) over () as found
from past_due full join mark using (organization_id)
where past_due.amount is null or wallet_id is null and exists (select from organizations where id = organization_id)
order by organization_id, wallet_id
limit %(shown)s;

-- name: find_overdrafts
-- Find debits of runs that took a balance below zero, or that the balance did not follow.
with
-- include: own_entry
select organization_id, entry_id,
    case when balance_after < 0 and amount < 0 then format('its debit took the balance from %%s to %%s', balance_before, balance_after)
         else format('its debit of %%s took the balance from %%s to %%s', -amount, balance_before, balance_after) end as message,
    count(*) over () as found
from own_entry
where balance_after < 0 and amount < 0 or balance_after <> balance_before + amount
order by organization_id, entry_id
limit %(shown)s;

-- name: find_metering_failures
-- Find changes of instances that could not be metered: only this table knows their hours.
select id as failure_id,
    format('a change of vps_instances at %%s could not be metered: %%s', failed_at, left(error, 500)) as message,
    count(*) over () as found
from billing_metering_failures
where %(whole)s
   or segment like '%%' || %(first_organization)s::text || '%%'
order by id
limit %(shown)s;

-- name: find_unnoticed_stops
-- Find instances that ran when they were charged last, are not billable any more, and of which no change was recorded: it was made
-- while the triggers of billing were off. Billing did not write these rows last (sealed_by), no segment ends at their
-- watermark, and a run has passed over them since.
select organization_id, instance.id as instance_id,
    format('it is charged until %%s and has the status %%s now, but its change was not recorded: the hours in between are unknown',
        watermark, coalesce(status, 'null')) as message,
    count(*) over () as found
from vps_instances instance
join billing_policies policy on valid_to = 'infinity',
lateral (select coalesce(last_billed_at, created_at) as watermark) place
where organization_id between %(first_organization)s and %(last_organization)s
  and sealed_by is not null and instance.xmin <> sealed_by and pending_segments is null
  and not billing_metered_status(coalesce(lasting_status, status::text), policy)
  and watermark < (select max(as_of) from billing_runs where outcome = 'completed')
  and exists (
    select from vps_billing_cycles charge
    where charge.run_id is not null and charge.segment_id is null
      and charge.organization_id = instance.organization_id and charge.vps_instance_id = instance.id
      and charge.billing_period_end = watermark)
  and not exists (
    select from billing_usage_segments segment
    where segment.organization_id = instance.organization_id and segment.instance_id = instance.id
      and segment.ended_at = watermark)
order by organization_id, instance.id
limit %(shown)s;

-- name: find_broken_prices
-- Find plans whose prices do not follow each other without gap or overlap, from since ever to for ever.
select plan_id,
    case when valid_from <> coalesce(previous_end, '-infinity')
         then format('a price begins at %%s, where %%s was expected', valid_from, coalesce(previous_end, '-infinity'))
         else format('its last price ends at %%s', valid_to) end as message,
    count(*) over () as found
from (
    select *, lag(valid_to) over in_order as previous_end, lead(valid_from) over in_order as next_start
    from plan_price_versions window in_order as (partition by plan_id order by valid_from)
) version
where valid_from <> coalesce(previous_end, '-infinity') or next_start is null and valid_to <> 'infinity'
order by plan_id, valid_from
limit %(shown)s;

-- name: find_broken_policies
-- Find policies that do not follow each other without gap or overlap, from since ever to for ever.
select format('policy %%s is in force from %%s to %%s, where from %%s to %%s was expected', id, valid_from, valid_to,
        coalesce(previous_end, '-infinity'), coalesce(next_start, 'infinity')) as message,
    count(*) over () as found
from (
    select *, lag(valid_to) over in_order as previous_end, lead(valid_from) over in_order as next_start
    from billing_policies window in_order as (order by valid_from)
) policy
where valid_from <> coalesce(previous_end, '-infinity') or next_start is null and valid_to <> 'infinity'
order by valid_from
limit %(shown)s;

-- name: find_hours_charged_by_both
-- Find instances whose hours the host's scheduler charged beside us, with what it took for them.
with
-- include: both_charged
,
per_instance as (
    select organization_id, instance_id, min(starts_at) as starts_at, max(ends_at) as ends_at,
        sum(hours) as hours, sum(amount) as amount
    from both_charged
    group by organization_id, instance_id
)
select organization_id, instance_id,
    format('the host application charged %%s hours between %%s and %%s too, and took %%s for them', trim_scale(round(hours, 4)),
        starts_at, ends_at, trim_scale(round(amount, 4))) as message,
    count(*) over () as found
from per_instance
order by organization_id, instance_id
limit %(shown)s;

-- name: verify_host_rows
-- Count what the host's scheduler wrote by itself: its billed rows, those that repeat or overlap another, those over hours
-- that we charged too, and its hourly debits since our first run, which carry no key against a second copy.
with
-- include: both_charged
,
cycle as (
    select vps_instance_id, billing_period_start as starts_at, billing_period_end as ends_at
    from vps_billing_cycles
    where run_id is null and status = 'billed'
      and organization_id between %(first_organization)s and %(last_organization)s
),
placed as (
    select starts_at, lag(starts_at) over in_order as previous_start,
        max(ends_at) over (in_order rows between unbounded preceding and 1 preceding) as billed_until
    from cycle window in_order as (partition by vps_instance_id order by starts_at, ends_at)
)
select count(*) as cycles, count(*) filter (where starts_at = previous_start) as doubled,
    count(*) filter (where starts_at <> previous_start and starts_at < billed_until) as overlapped,
    (select count(distinct cycle_id) from both_charged) as charged_by_both,
    (select coalesce(sum(hours), 0) from both_charged) as hours_charged_by_both,
    (select coalesce(sum(amount), 0) from both_charged) as amount_charged_by_both,
    (select count(*) from payment_transactions entry, began
     where entry.payment_method = 'wallet_debit' and entry.created_at >= began.at
       and not coalesce(starts_with(entry.provider_transaction_id, 'billing-'), false)
       and jsonb_typeof(entry.metadata -> 'run_id') is distinct from 'number'
       and entry.description like 'VPS Hourly Billing - %%'
       and entry.organization_id between %(first_organization)s and %(last_organization)s) as unkeyed_debits
from placed;

-- name: verify_accepted
-- Decisions about discrepancies, by check: how many were accepted or restored, how much in all, the last author and instant.
select check_name, decision, count(*)::integer as decisions, coalesce(sum(abs(amount)), 0) as amount,
    (array_agg(decided_by order by id desc))[1] as decided_by, max(decided_at) as decided_at
from billing_decisions
where decision in ('accept', 'restore')
  and (%(whole)s or organization_id between %(first_organization)s and %(last_organization)s)
group by check_name, decision
order by check_name, decision;

-- name: accepted_fingerprints
-- The discrepancies that were accepted one by one.
select check_name, fingerprint from billing_decisions where decision = 'accept' and fingerprint is not null;

-- name: count_open_items
-- Count what is right and still worth knowing: what waits, what is owed, and what cannot be compared any more.
with
owing as (
    select vps_instance_id, total_amount from vps_billing_cycles charge
    where status = 'failed' and run_id is not null
      and organization_id between %(first_organization)s and %(last_organization)s
      and exists (select from organizations where organizations.id = charge.organization_id)
),
passed as (
    -- What the host billed in these hours itself is no revenue that is missing.
    select segment.started_at, segment.ended_at, coalesce(price.hourly_rate, 0) as hourly_rate
    from billing_usage_segments segment
    left join lateral (
        select round((version.base_price + coalesce(version.markup_price, 0)) / run.hours_per_month, 8) as hourly_rate
        from plan_price_versions version
        join (select hours_per_month from billing_runs order by id desc limit 1) run on true
        left join vps_plans plan on plan.id = version.plan_id
        where (version.plan_id::text = segment.plan_id or plan.provider_plan_id = segment.plan_id)
          and version.valid_from <= segment.started_at and segment.started_at < version.valid_to
          and version.base_price <> 'NaN' and version.markup_price is distinct from 'NaN'
        order by version.plan_id::text = segment.plan_id desc
        limit 1
    ) price on true
    where segment.reason = 'watermark' and segment.outcome = 'waived'
      and segment.organization_id between %(first_organization)s and %(last_organization)s
      and not exists (
        select from vps_billing_cycles cycle
        where cycle.run_id is null and cycle.status = 'billed' and cycle.vps_instance_id = segment.instance_id
          and cycle.billing_period_start < segment.ended_at and cycle.billing_period_end > segment.started_at)
)
select
    (select count(distinct instance_id) from billing_quarantine
     where reason <> 'held' and organization_id between %(first_organization)s and %(last_organization)s) as quarantined_instances,
    (select count(distinct instance_id) from billing_quarantine
     where reason = 'held' and organization_id between %(first_organization)s and %(last_organization)s) as held_instances,
    (select count(distinct vps_instance_id) from owing) as past_due_instances,
    (select coalesce(sum(total_amount), 0) from owing) as past_due_amount,
    (select coalesce(sum(unposted_charges), 0)::bigint
     from (select unposted_charges from billing_price_corrections
           union all
           select unposted_charges from billing_adjustment_orders given
           where not exists (select from billing_adjustment_orders undoing where undoing.undoes = given.id)) posted)
        as unposted_adjustments,
    (select count(*) from billing_closed_segments()
     where outcome is null and organization_id between %(first_organization)s and %(last_organization)s) as unsettled_segments,
    (select count(*) from vps_billing_cycles charge
     where run_id is not null and organization_id between %(first_organization)s and %(last_organization)s
       and not exists (select from organizations where id = charge.organization_id)) as charges_without_organization,
    (select round(coalesce(sum(extract(epoch from ended_at - started_at)) / 3600, 0), 6) from passed) as hours_passed_by_host,
    (select coalesce(sum(billing_amount(hourly_rate, started_at, ended_at)), 0) from passed) as amount_passed_by_host;
