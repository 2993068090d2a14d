-- One batch of a run: what happens between BEGIN and COMMIT for one range of organizations.
--
-- Why no schedule of billers, crashes and pauses can charge an hour twice, and none can lose one:
--
--   fence    The lease row is held FOR KEY SHARE until COMMIT, so a takeover waits for us, and after a takeover we find
--            no row and charge nothing. This only keeps billers apart; the next steps are safe without it.
--   lock     Organizations, then wallets, are locked in one order before anything else is read. Each statement that follows takes its own
--            snapshot (READ COMMITTED) and so sees what the holder before us committed, never what a scan saw earlier.
--   file     Stretches that the host closed since the last run stand in the rows of their instances. They become segments here,
--            in the transaction that charges them, so they are in one place or the other, whatever becomes of it (027).
--   charge   Charges are derived from the rows as they are now. The unique key over (organization, instance, start of the
--            period) refuses a second copy of a charge, whoever writes it.
--   advance  A watermark moves only from the start of what was charged to its end. If the host changed the instance in
--            between, its row no longer stands at the start, fewer rows move than were charged, and the caller rolls
--            the whole batch back. The ordinary hour goes the other way round: the watermark moves first, in the row as
--            it stands when it is locked, and one charge is written for each row that moved, from that row.
--   post     Ledger entry and debit are both sums over the charges that this transaction wrote, so they cannot differ
--            from them. The ordinary hour is posted by the statement that charges it: there the sums are over the rows
--            that moved, and each of these is one charge.
--
-- All or nothing is the transaction's; no memory of the process takes part in it. After any error the batch is derived
-- again from the rows.
--
-- Money that is short: a wallet without debts that covers everything due is billed at once, which is nearly all of them, by
-- `charge_ordinary_hour` or `charge`. Everything else is first recorded as owed (`failed` rows: by the same when the wallet
-- falls short now, by `grow_debts` and `record_debts` when it owed before), and then `pay_debts` pays what the wallet can,
-- hour by hour, over old and new debts alike. So there is one place that decides who is paid first.
--
-- Why there are two ways to charge: nearly every batch of nearly every run has one hour of each instance to charge, and
-- nothing else. Then the update that moves the watermarks is also the search for what is due, and a million instances cost
-- 29 % less. Which batches are like that is known from the plan and asked again under the locks; where it is wrong, an
-- instance with more due, or with stretches that are not filed, is left as it stands for the next run: its closed hours and
-- its open ones are charged together, or held together.
--
-- The range of organizations is repeated for every table: PostgreSQL does not infer it across joins.


-- part: payers
-- The wallet that pays for an organization: the oldest in the currency of billing. A balance that is no number covers
-- everything, since NaN sorts above all numbers, so such a wallet pays nothing and its instances are quarantined.
payer as (
    select distinct on (organization_id) id as wallet_id, organization_id, balance, billing_carry, past_due_since,
        balance - billing_carry as available
    from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
      and upper(currency) = %(currency)s
    order by organization_id, created_at, id
)

-- part: plan_rates
-- Every name under which an instance may know its plan, with the rates of that plan and when they hold. The plan whose
-- id it is wins; else the active plans with that provider_plan_id, if they cost the same; else those that are not active any
-- more, at which only what was closed before is charged. A plan with one unusable price
-- is left out as a whole, or hours in the middle would stay uncharged and nobody would see it. Versions that lead to the same
-- rates one after the other are one, so that another mix of base and markup does not cut a charge in two.
plan_name as (
    select plan_id::text as name, plan_id, true as is_offered from plan_price_versions group by plan_id
    union all
    select provider_plan_id, (array_agg(id order by created_at, id))[1], active
    from vps_plans
    where provider_plan_id not in (select plan_id::text from plan_price_versions)
      and (active or provider_plan_id not in (select provider_plan_id from vps_plans where active))
    group by provider_plan_id, active
    having count(distinct (base_price + coalesce(markup_price, 0),
        coalesce((to_jsonb(vps_plans) ->> 'backup_price_hourly')::numeric, 0)
            + coalesce((to_jsonb(vps_plans) ->> 'backup_upcharge_hourly')::numeric, 0))) = 1
),
unusable_plan as (
    select distinct plan_id from plan_price_versions version where not billing_usable_price(version)
),
version_rate as (
    select plan_id, valid_from, valid_to,
        round((base_price + coalesce(markup_price, 0)) / %(hours_per_month)s, 8) as hourly_rate,
        round((base_price + coalesce(markup_price, 0)) / %(hours_per_month)s
            + coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0), 8) as hourly_rate_with_backups
    from plan_price_versions
    where plan_id not in (select plan_id from unusable_plan)
),
lasting_rate as (
    select plan_id, min(valid_from) as valid_from, max(valid_to) as valid_to, hourly_rate, hourly_rate_with_backups
    from (
        select *, count(*) filter (where begins) over (partition by plan_id order by valid_from) as number
        from (
            select *, (hourly_rate, hourly_rate_with_backups) is distinct from
                (lag(hourly_rate) over history, lag(hourly_rate_with_backups) over history) as begins
            from version_rate window history as (partition by plan_id order by valid_from)
        ) marked
    ) numbered
    group by plan_id, number, hourly_rate, hourly_rate_with_backups
),
plan_rate as materialized (
    select plan_name.name, plan_id, valid_from, valid_to, hourly_rate, hourly_rate_with_backups,
        is_offered and exists (select from vps_plans where vps_plans.id = plan_id) as on_sale
    from plan_name join lasting_rate using (plan_id)
)

-- part: released
-- Until when somebody approved hours beyond the catch-up bound.
released as (
    select organization_id, instance_id, max(charge_until) as released_until
    from billing_decisions
    where organization_id between %(first_organization)s and %(last_organization)s and %(decisions)s
    group by organization_id, instance_id
)

-- part: pieces
-- What is due, priced: one row per stretch and price. A stretch is the whole hours of an instance since its watermark, or a
-- closed segment. An hour is priced at its start, so a price that begins at half past takes effect with the next hour.
-- An instance is left out, and so found by `set_aside`, when its watermark is no date or stands before what was charged
-- already (rated_until), or when it has more hours due to one organization, closed and open together, than anybody approved:
-- then all of them wait. (What it has due to another, which it was moved from, is counted there: a batch may not hold both.)
-- Stretches that are still kept in the row of their instance are looked at by those who only look (%(kept)s); they have no
-- number yet. A batch has filed its own, and leaves an instance alone that closed another one since.
closed_stretch as (
    select segment.organization_id, instance_id, segment_id, plan_id as plan_name, backups,
        started_at as starts_at, charge_until as until,
        ceil(extract(epoch from charge_until - started_at) / 3600)::integer as hours,
        extract(epoch from charge_until - greatest(started_at, least(coalesce(released_until, started_at), charge_until)))
            / 3600 as hours_to_answer_for
    from (
        select organization_id, instance_id, id as segment_id, plan_id, backups, started_at, charge_until
        from billing_usage_segments
        where organization_id between %(first_organization)s and %(last_organization)s
          and instance_id between %(first_instance)s and %(last_instance)s
          and outcome is null and closed_at <= %(as_of)s and %(segments)s
        union all
        select kept.organization_id, instance_id, 0, kept.plan_id, backups, started_at, charge_until
        from vps_instances instance, billing_segments_of(instance, pending_segments) kept
        where instance.organization_id between %(first_organization)s and %(last_organization)s
          and instance.id between %(first_instance)s and %(last_instance)s
          and pending_segments is not null and outcome is null and closed_at <= %(as_of)s and %(kept)s
    ) segment
    left join released using (organization_id, instance_id)
),
open_stretch as not materialized (
    select instance.organization_id, id as instance_id, plan_id as plan_name, billing_has_backups(instance) as backups,
        watermark as starts_at,
        case when watermark > %(as_of)s - interval '2 hours' then 1
             else floor(extract(epoch from %(as_of)s - watermark) / 3600)::integer end as hours,
        case when released_until > watermark then
            floor(extract(epoch from %(as_of)s - watermark) / 3600)
                - floor(extract(epoch from least(released_until, %(as_of)s) - watermark) / 3600) end as hours_beyond_release
    from vps_instances instance
    left join released on released.organization_id = instance.organization_id and released.instance_id = id,
    lateral (select coalesce(last_billed_at, created_at) as watermark) at
    where instance.organization_id between %(first_organization)s and %(last_organization)s
      and id between %(first_instance)s and %(last_instance)s
      and (%(every_status)s or status = any (%(billable_statuses)s))
      and watermark <= %(as_of)s - interval '1 hour'
      and isfinite(watermark)
      and watermark >= coalesce(rated_until, watermark)
      and (pending_segments is null or %(kept)s)
),
total_due as (
    select organization_id, instance_id,
        sum(hours_to_answer_for) + coalesce(max(hours_beyond_release), max(open_stretch.hours), 0) as hours_of_both
    from closed_stretch left join open_stretch using (organization_id, instance_id)
    group by organization_id, instance_id
),
stretch as (
    select organization_id, instance_id, null::bigint as segment_id, plan_name, backups, starts_at,
        starts_at + hours * interval '1 hour' as until, hours, true as is_open
    from open_stretch
    left join total_due using (organization_id, instance_id)
    where coalesce(hours_of_both, hours_beyond_release, hours) <= %(max_catch_up_hours)s
    union all
    select organization_id, instance_id, segment_id, plan_name, backups, starts_at, until, hours, false
    from closed_stretch
    join total_due using (organization_id, instance_id)
    where hours_of_both <= %(max_catch_up_hours)s
),
piece as materialized (
    select organization_id, instance_id, segment_id, plan_rate.plan_id, rate as hourly_rate,
        stretch.starts_at + first_hour * interval '1 hour' as starts_at,
        case when last_hour = hours then until else stretch.starts_at + last_hour * interval '1 hour' end as ends_at,
        case when is_open or last_hour < hours then (last_hour - first_hour) * rate
             else billing_amount(rate, stretch.starts_at + first_hour * interval '1 hour', until) end as amount
    from stretch
    join plan_rate on plan_rate.name = plan_name and (on_sale or not is_open)
        and valid_from <= stretch.starts_at + (hours - 1) * interval '1 hour' and stretch.starts_at < valid_to,
    lateral (
        select case when backups then hourly_rate_with_backups else hourly_rate end as rate,
            case when valid_from <= stretch.starts_at then 0
                 else ceil(extract(epoch from valid_from - stretch.starts_at) / 3600)::integer end as first_hour,
            case when stretch.starts_at + (hours - 1) * interval '1 hour' < valid_to then hours
                 else ceil(extract(epoch from valid_to - stretch.starts_at) / 3600)::integer end as last_hour
    ) span
    where first_hour < last_hour
)

-- part: posting
-- One ledger entry per wallet: the whole cents of its carry and of what was billed; no cents, no entry. And the same cents
-- off its balance, what is left below a cent carried on.
entry as (
    insert into payment_transactions (id, organization_id, amount, currency, payment_method, payment_provider,
        provider_transaction_id, status, description, metadata, created_at, updated_at)
    select
        billing_batch_uuid(%(batch_key)s, uuid_hash_extended(organization_id, 0)),
        organization_id, -debit, %(currency)s, 'wallet_debit', 'internal', 'billing-run-' || %(run_id)s::text, 'completed',
        'VPS Hourly Billing - ' || case when instances > 1 then instances::text || ' instances' else coalesce(
                (select left(label, 255) from vps_instances where id = one_instance),
                (select left(label, 255) from billing_usage_segments segment
                 where segment.organization_id = bill.organization_id and instance_id = one_instance
                 order by started_at desc limit 1), one_instance::text) end
            || ' (' || trim_scale(round(hours, 4))::text || 'h)',
        jsonb_build_object('balance_before', balance, 'balance_after', balance - debit, 'run_id', %(run_id)s::bigint,
            'instances', instances, 'hours', trim_scale(round(hours, 6)), 'exact_amount', amount, 'carry_before', billing_carry),
        %(as_of)s, %(as_of)s
    from bill join payer using (organization_id), lateral (select trunc(billing_carry + amount, 2) as debit) cents
    where debit > 0
),
debited as (
    update wallets
    set balance = wallets.balance - trunc(wallets.billing_carry + amount, 2),
        billing_carry = wallets.billing_carry + amount - trunc(wallets.billing_carry + amount, 2)
    from bill join payer using (organization_id)
    where wallets.organization_id between %(first_organization)s and %(last_organization)s
      and wallets.id = payer.wallet_id
)

-- name: fence
-- Hold the lease for the length of the transaction; no row means that it is not ours any more.
select true from billing_leases
where name = 'billing' and fencing_token = %(fencing_token)s and nonce = %(nonce)s
for key share;

-- name: hold_organizations
-- Hold the organizations of the batch, in order, before their wallets: the ledger entries will need that, and a host that
-- deletes one locks it first too (031). Says which prices there are before anything is derived from them.
select (select coalesce(sum(id), 0) from plan_price_versions where isfinite(valid_from) and valid_from < %(as_of)s) as prices,
    billing_lock_organizations(%(first_organization)s, %(last_organization)s);

-- name: lock_wallets
-- Lock the wallets of the batch in order; say whether any of them owes, and whether there are closed segments to charge
-- or decisions to heed. Every biller of these organizations waits here.
select count(*) filter (where past_due_since is not null) > 0 as debts,
    exists (select from billing_usage_segments
            where organization_id between %(first_organization)s and %(last_organization)s
              and outcome is null and closed_at <= %(as_of)s) as segments,
    exists (select from billing_decisions
            where organization_id between %(first_organization)s and %(last_organization)s) as decisions
from (
    select past_due_since from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
    order by organization_id, created_at, id
    for no key update
) wallet;

-- name: charge_ordinary_hour
-- Where nothing but one hour is due of any instance: move the watermarks of the wallets that owe nothing, charge each row
-- that moved, and post the charges, unless a wallet owes or falls short: then it waits for what `pay_debts` pays.
with
-- include: payers, plan_rates
,
moved as (
    update vps_instances instance
    set last_billed_at = coalesce(last_billed_at, instance.created_at) + interval '1 hour',
        rated_until = coalesce(last_billed_at, instance.created_at) + interval '1 hour',
        sealed_by = case when instance.xmin = instance.sealed_by then pg_current_xact_id()::xid end
    from plan_rate, payer
    where instance.organization_id between %(first_organization)s and %(last_organization)s
      and instance.id between %(first_instance)s and %(last_instance)s
      and (%(every_status)s or status = any (%(billable_statuses)s))
      and coalesce(last_billed_at, instance.created_at) > %(as_of)s - interval '2 hours'
      and coalesce(last_billed_at, instance.created_at) <= %(as_of)s - interval '1 hour'
      and coalesce(last_billed_at, instance.created_at) >= coalesce(rated_until, last_billed_at, instance.created_at)
      and pending_segments is null
      and plan_rate.name = instance.plan_id and on_sale
      and valid_from <= coalesce(last_billed_at, instance.created_at)
      and coalesce(last_billed_at, instance.created_at) < valid_to
      and payer.organization_id = instance.organization_id and past_due_since is null
      and balance between -100000000000 and 100000000000
    returning instance.organization_id, instance.id as instance_id, last_billed_at as ends_at, plan_rate.plan_id,
        case when billing_has_backups(instance) then hourly_rate_with_backups else hourly_rate end as hourly_rate, sealed_by
),
charged as materialized (
    select organization_id, amount, instances, one_instance, amount <= available as covered,
        case when trunc(billing_carry + amount, 2) > 0
             then billing_batch_uuid(%(batch_key)s, uuid_hash_extended(organization_id, 0)) end as entry_id
    from (
        select organization_id, sum(hourly_rate) as amount, count(*) as instances, (array_agg(instance_id))[1] as one_instance
        from moved group by organization_id
    ) due
    join payer using (organization_id)
),
written as (
    insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate,
        total_amount, status, payment_transaction_id, run_id, plan_id, past_due_since, created_at, updated_at)
    select
        billing_batch_uuid(%(batch_key)s, uuid_hash_extended(instance_id, 0)),
        organization_id, instance_id, ends_at - interval '1 hour', ends_at, hourly_rate, hourly_rate,
        case when covered then 'billed' else 'failed' end,
        case when covered then entry_id end,
        %(run_id)s, plan_id,
        case when covered then null else %(as_of)s end,
        %(as_of)s, %(as_of)s
    from moved join charged using (organization_id)
),
bill as (
    select organization_id, amount, instances, instances::numeric as hours, one_instance from charged
    where not %(debts)s and not exists (select from charged where not covered)
),
-- include: posting
select coalesce(sum(instances), 0)::bigint as written, coalesce(bool_or(not covered), false) as short,
    coalesce(sum(amount), 0) as amount, (select array_agg(instance_id) from moved where sealed_by is null) as unsealed
from charged;

-- name: charge
-- Charge whatever is due to the wallets that owe nothing: billed where the wallet covers all of it, owed where it does not.
insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate,
    total_amount, status, payment_transaction_id, run_id, plan_id, segment_id, past_due_since, created_at, updated_at)
with
-- include: payers, plan_rates, released, pieces
select
    billing_batch_uuid(%(batch_key)s, uuid_hash_extended(instance_id, timestamp_hash_extended(starts_at at time zone 'UTC', 0))),
    organization_id, instance_id, starts_at, ends_at, hourly_rate, amount,
    case when covered then 'billed' else 'failed' end,
    case when covered then entry_id end,
    %(run_id)s, plan_id, segment_id,
    case when covered then null else %(as_of)s end,
    %(as_of)s, %(as_of)s
from piece
join (
    select organization_id, total <= available as covered,
        case when trunc(billing_carry + total, 2) > 0
             then billing_batch_uuid(%(batch_key)s, uuid_hash_extended(organization_id, 0)) end as entry_id
    from (select organization_id, sum(amount) as total from piece group by organization_id) due
    join payer using (organization_id)
    where past_due_since is null
      and balance between -100000000000 and 100000000000
) wallet using (organization_id);

-- name: grow_debts
-- Let a debt grow by the hours that follow it without a break at the same rate. Only a debt of whole hours grows: a fraction
-- of an hour is the last unit of its stretch, and what follows it begins a new one.
with
-- include: payers, plan_rates, released, pieces
update vps_billing_cycles debt
set billing_period_end = piece.ends_at, total_amount = debt.total_amount + piece.amount, grown_from = piece.starts_at,
    segment_id = piece.segment_id, run_id = %(run_id)s, past_due_batch = %(batch)s, updated_at = %(as_of)s
from piece join payer using (organization_id)
where payer.past_due_since is not null
  and balance between -100000000000 and 100000000000
  and debt.organization_id between %(first_organization)s and %(last_organization)s
  and debt.organization_id = piece.organization_id and debt.vps_instance_id = piece.instance_id
  and debt.status = 'failed' and debt.run_id is not null
  and debt.billing_period_end = piece.starts_at and debt.hourly_rate = piece.hourly_rate and debt.plan_id = piece.plan_id
  and extract(epoch from debt.billing_period_end - debt.billing_period_start) %% 3600 = 0;

-- name: record_debts
-- Record what is due from wallets that owe already, and that continues no debt, as debts of its own.
insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate,
    total_amount, status, run_id, plan_id, segment_id, past_due_since, created_at, updated_at)
with
-- include: payers, plan_rates, released, pieces
select
    billing_batch_uuid(%(batch_key)s, uuid_hash_extended(instance_id, timestamp_hash_extended(starts_at at time zone 'UTC', 0))),
    organization_id, instance_id, starts_at, ends_at, hourly_rate, amount, 'failed', %(run_id)s, plan_id, segment_id,
    %(as_of)s, %(as_of)s, %(as_of)s
from piece join payer using (organization_id)
where payer.past_due_since is not null
  and balance between -100000000000 and 100000000000
  and not exists (
    select from vps_billing_cycles debt
    where debt.organization_id between %(first_organization)s and %(last_organization)s
      and debt.organization_id = piece.organization_id and debt.vps_instance_id = piece.instance_id
      and debt.status = 'failed' and debt.run_id = %(run_id)s and debt.past_due_batch = %(batch)s
      and debt.grown_from = piece.starts_at);

-- name: advance_watermarks
-- Move each watermark from the start of what was charged to its end, if it still stands at the start. A stretch that
-- crosses a price has a charge for each side of it, and takes one round for each: so the rows that move, over all rounds,
-- are exactly the charges that were written.
update vps_instances instance
set last_billed_at = charge.billing_period_end, rated_until = charge.billing_period_end, sealed_by = pg_current_xact_id()::xid
from vps_billing_cycles charge
where charge.id between %(first_id)s and %(last_id)s and segment_id is null
  and instance.organization_id between %(first_organization)s and %(last_organization)s
  and instance.organization_id = charge.organization_id and instance.id = charge.vps_instance_id
  and instance.sealed_by in (instance.xmin, pg_current_xact_id()::xid)
  and coalesce(instance.last_billed_at, instance.created_at) = charge.billing_period_start;

-- name: advance_over_grown_debts
-- The same for hours that let a debt grow: they begin where it ended before.
update vps_instances instance
set last_billed_at = debt.billing_period_end, rated_until = debt.billing_period_end, sealed_by = pg_current_xact_id()::xid
from vps_billing_cycles debt
where debt.run_id = %(run_id)s and past_due_batch = %(batch)s and past_due_since is not null and segment_id is null
  and debt.status = 'failed' and debt.organization_id between %(first_organization)s and %(last_organization)s
  and instance.organization_id between %(first_organization)s and %(last_organization)s
  and instance.organization_id = debt.organization_id and instance.id = debt.vps_instance_id
  and instance.sealed_by in (instance.xmin, pg_current_xact_id()::xid)
  and coalesce(instance.last_billed_at, instance.created_at) = debt.grown_from;

-- part: charged_segments
-- The closed segments that this batch has charged, as charges of their own or as growth of a debt; and the open pieces.
written as (
    select segment_id from vps_billing_cycles where id between %(first_id)s and %(last_id)s
    union all
    select segment_id from vps_billing_cycles
    where %(debts)s and run_id = %(run_id)s and past_due_batch = %(batch)s and past_due_since is not null
      and status = 'failed' and organization_id between %(first_organization)s and %(last_organization)s
)

-- name: settle_segments
-- Mark the segments that were charged; each once.
with
-- include: charged_segments
update billing_usage_segments segment
set outcome = 'charged', run_id = %(run_id)s
from (select distinct segment_id from written where segment_id is not null) charged
where segment.organization_id between %(first_organization)s and %(last_organization)s
  and segment.id = charged.segment_id and outcome is null;

-- name: expected_advances
-- Count what the batch has written: as many charges of open stretches must move a watermark, as many segments be settled.
with
-- include: charged_segments
select count(*) filter (where segment_id is null) as moves, count(distinct segment_id) as segments from written;

-- name: mark_past_due
-- Note on the wallets that fell short in this batch that they owe.
with
-- include: payers
update wallets set past_due_since = %(as_of)s
from payer
where wallets.organization_id between %(first_organization)s and %(last_organization)s
  and wallets.id = payer.wallet_id and wallets.past_due_since is null
  and payer.organization_id in (
    select organization_id from vps_billing_cycles
    where id between %(first_id)s and %(last_id)s and status = 'failed');

-- name: pay_debts
-- Pay what is owed, oldest hour first, then by instance, whole hours, until the first that does not fit. A debt that is
-- paid in part keeps its paid hours as a charge; the rest becomes a debt of its own. Wallets that cover everything, or
-- not even the cheapest hour, are decided without looking at single hours.
with
-- include: payers
,
debt as (
    select debt.*, available, billing_carry,
        ceil(extract(epoch from billing_period_end - billing_period_start) / 3600)::integer as hours,
        sum(total_amount) over (partition by organization_id) as owed,
        min(case when total_amount < hourly_rate then total_amount else hourly_rate end)
            over (partition by organization_id) as cheapest_hour_at_most
    from vps_billing_cycles debt join payer using (organization_id)
    where debt.organization_id between %(first_organization)s and %(last_organization)s
      and debt.status = 'failed' and debt.run_id is not null
      and payer.past_due_since is not null
      and balance between -100000000000 and 100000000000
),
hour as (
    select id, organization_id, available, hour_amount,
        sum(hour_amount) over (partition by organization_id order by starts_at, vps_instance_id
            rows unbounded preceding) as paid_so_far
    from debt, generate_series(0, hours - 1) as number, lateral (
        select billing_period_start + number * interval '1 hour' as starts_at,
            case when number = hours - 1 then total_amount - number * hourly_rate else hourly_rate end as hour_amount
    ) one
    where owed > available
),
paid as (
    select id, hours as paid_hours from debt where owed <= available
    union all
    select id, count(*)::integer from hour where paid_so_far <= available group by id
),
settled as (
    select debt.*, paid_hours, case when paid_hours = hours then total_amount else paid_hours * hourly_rate end as paid_amount,
        billing_period_start + paid_hours * interval '1 hour' as paid_until
    from paid join debt using (id)
),
entry as (
    select organization_id, trunc(min(billing_carry) + sum(paid_amount), 2) > 0 as is_written
    from settled group by organization_id
),
rest as (
    insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end,
        hourly_rate, total_amount, status, run_id, plan_id, segment_id, past_due_since, created_at, updated_at)
    select
        billing_batch_uuid(%(batch_key)s,
            uuid_hash_extended(vps_instance_id, timestamp_hash_extended(paid_until at time zone 'UTC', 0))),
        organization_id, vps_instance_id, paid_until, billing_period_end, hourly_rate, total_amount - paid_amount,
        'failed', %(run_id)s, plan_id, segment_id, past_due_since, created_at, %(as_of)s
    from settled where paid_hours < hours
)
update vps_billing_cycles charge
set status = 'billed', run_id = %(run_id)s, past_due_batch = %(batch)s, total_amount = paid_amount,
    billing_period_end = case when paid_hours = hours then charge.billing_period_end else paid_until end,
    payment_transaction_id = case when entry.is_written
        then billing_batch_uuid(%(batch_key)s, uuid_hash_extended(charge.organization_id, 0)) end,
    updated_at = %(as_of)s
from settled join entry using (organization_id)
where charge.organization_id between %(first_organization)s and %(last_organization)s
  and charge.id = settled.id;

-- name: billed
-- What this batch billed, by organization, and how many charges its wallet could not cover: new charges by the range of the
-- primary key, former debts by the batch's number.
select organization_id,
    coalesce(sum(total_amount) filter (where status = 'billed'), 0) as amount,
    count(distinct vps_instance_id) filter (where status = 'billed') as instances,
    coalesce(sum(extract(epoch from billing_period_end - billing_period_start)) filter (where status = 'billed'), 0) / 3600
        as hours,
    (array_agg(vps_instance_id))[1] as one_instance,
    count(*) filter (where status = 'failed') as not_covered
from (
    select organization_id, vps_instance_id, total_amount, billing_period_start, billing_period_end, status
    from vps_billing_cycles
    where id between %(first_id)s and %(last_id)s and (past_due_since is null or not %(debts)s)
    union all
    select organization_id, vps_instance_id, total_amount, billing_period_start, billing_period_end, status
    from vps_billing_cycles
    where %(debts)s and past_due_since is not null and run_id = %(run_id)s and past_due_batch = %(batch)s
      and organization_id between %(first_organization)s and %(last_organization)s
) charge
group by organization_id;

-- part: bills
-- The answer of `billed`, handed back: one row per organization.
bill as (
    select * from unnest(%(organizations)s::uuid[], %(amounts)s::numeric[], %(instances)s::bigint[], %(hours)s::numeric[],
        %(one_instances)s::uuid[]) as bill (organization_id, amount, instances, hours, one_instance)
)

-- name: post
-- Post what this batch billed.
with
-- include: payers, bills, posting
select count(*) from bill;

-- name: clear_past_due
-- Take the mark off the wallets that owe nothing any more.
update wallets set past_due_since = null
where organization_id between %(first_organization)s and %(last_organization)s
  and past_due_since is not null
  and not exists (
    select from vps_billing_cycles debt
    where debt.organization_id = wallets.organization_id and debt.status = 'failed' and debt.run_id is not null);

-- name: record_batch
-- Add the batch to the run row, if the run is still open, and the clock was not set back into the hours that it bills: a host
-- that changes an instance then notes an instant from before them, its watermark stays where it is, and the advance cannot
-- notice the change. Returns whether the prices are those that the charges were derived by: one that was dated before the
-- run was there to see, and is committed since, begins among the hours of this batch. (One that is dated later begins after them.)
update billing_runs
set batches = batches + 1, instances_billed = instances_billed + %(batch_instances)s, hours = hours + %(batch_hours)s,
    amount = amount + %(batch_amount)s
where id = %(run_id)s and outcome is null and as_of < billing_clock() + interval '1 hour'
returning %(prices)s = (
    select coalesce(sum(id), 0) from plan_price_versions where isfinite(valid_from) and valid_from < %(as_of)s);
