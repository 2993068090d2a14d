-- What an organization has due, and what it costs. Shared by the statements of a batch, by the plan of a run and by
-- decisions about held hours, so that none of them can have an opinion of its own.
--
-- Every statement repeats the range of organizations for every table: PostgreSQL does not infer it across joins.


-- part: payers
-- The wallet that pays for an organization: the oldest in the currency of billing. `available` is what it can still pay: what is
-- carried was billed already. It is null where the balance is no usable number: such a wallet pays nothing, and its
-- instances are quarantined.
payer as (
    select distinct on (organization_id) id as wallet_id, organization_id, balance, billing_carry, past_due_since,
        case when balance between -100000000000 and 100000000000 then balance - billing_carry end as available
    from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
      and upper(currency) = %(currency)s
    order by organization_id, created_at, id
)

-- part: plan_rates
-- Every name under which an instance may know its plan, with the rates of that plan and when they hold. The plan whose
-- id it is wins; else the active plans with that provider_plan_id, if they cost the same; else those that are not active any
-- more, at which only what was closed before is charged. A plan with one unusable price
-- is left out as a whole, or hours in the middle would stay uncharged unnoticed. Versions that lead to the same
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

-- part: given_rates
-- The same rates, read once per run and handed to each batch as one document; `record_batch` compares their fingerprint.
plan_rate as materialized (
    select * from jsonb_to_recordset(%(rates)s::jsonb) as rate (name text, plan_id uuid, valid_from timestamptz,
        valid_to timestamptz, hourly_rate numeric, hourly_rate_with_backups numeric, on_sale boolean)
)

-- part: rates_fingerprint
-- A number that changes with the names of plans, and with the prices that hold before the run's instant. A price that is dated
-- later begins after the hours of the run.
rates_fingerprint as (
    select coalesce(sum(hash_record_extended(fact, 0)), 0) as fingerprint
    from (
        select row (id, plan_id, valid_from, least(valid_to, %(as_of)s), base_price, markup_price, backup_price_hourly,
            backup_upcharge_hourly) as fact
        from plan_price_versions where valid_from < %(as_of)s
        union all
        select row (id, provider_plan_id, active, created_at) from vps_plans
    ) one
)

-- part: released
-- Until when an operator approved hours beyond the catch-up bound.
released as (
    select organization_id, instance_id, max(charge_until) as released_until
    from billing_decisions
    where organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id, instance_id
)

-- part: pieces
-- What is due, priced: one row per segment and price. The open segment of an instance is the whole hours since its watermark.
-- An hour is priced at its start, so a price that begins at half past takes effect with the next hour.
--
-- An instance is left out, and so found by `quarantine`, when its watermark is no date or stands before what was charged
-- already (rated_until), or when it has more hours due to one organization, closed and open together, than were approved:
-- then all of them wait. (What it has due to another, which it was moved from, is counted there: a batch may not hold both.)
--
-- Closed segments that are still pending in the row of their instance count where a statement only looks
-- (%(include_pending)s); they have no number yet. A batch has flushed its own, and leaves an instance that closed another one since.
closed_segment as (
    select segment.organization_id, instance_id, segment_id, plan_id as plan_name, backups,
        started_at as starts_at, charge_until as until,
        ceil(extract(epoch from charge_until - started_at) / 3600)::integer as hours,
        extract(epoch from charge_until - greatest(started_at, least(coalesce(released_until, started_at), charge_until)))
            / 3600 as unapproved_hours
    from (
        select organization_id, instance_id, id as segment_id, plan_id, backups, started_at, charge_until
        from billing_usage_segments
        where organization_id between %(first_organization)s and %(last_organization)s
          and instance_id between %(first_instance)s and %(last_instance)s
          and outcome is null and closed_at <= %(as_of)s
        union all
        select pending.organization_id, instance_id, 0, pending.plan_id, backups, started_at, charge_until
        from vps_instances instance, billing_segments_of(instance, pending_segments) pending
        where instance.organization_id between %(first_organization)s and %(last_organization)s
          and instance.id between %(first_instance)s and %(last_instance)s
          and pending_segments is not null and outcome is null and closed_at <= %(as_of)s and %(include_pending)s
    ) segment
    left join released using (organization_id, instance_id)
),
open_segment as not materialized (
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
      and (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s))
      and watermark <= %(as_of)s - interval '1 hour'
      and isfinite(watermark)
      and watermark >= coalesce(rated_until, watermark)
      and (pending_segments is null or %(include_pending)s)
),
total_due as (
    select organization_id, instance_id,
        sum(unapproved_hours) + coalesce(max(hours_beyond_release), max(open_segment.hours), 0) as unapproved_hours_of_both
    from closed_segment left join open_segment using (organization_id, instance_id)
    group by organization_id, instance_id
),
approved_segment as (
    select organization_id, instance_id, null::bigint as segment_id, plan_name, backups, starts_at,
        starts_at + hours * interval '1 hour' as until, hours, true as is_open
    from open_segment
    left join total_due using (organization_id, instance_id)
    where coalesce(unapproved_hours_of_both, hours_beyond_release, hours) <= %(max_catch_up_hours)s
    union all
    select organization_id, instance_id, segment_id, plan_name, backups, starts_at, until, hours, false
    from closed_segment
    join total_due using (organization_id, instance_id)
    where unapproved_hours_of_both <= %(max_catch_up_hours)s
),
piece as materialized (
    select organization_id, instance_id, segment_id, plan_rate.plan_id, rate as hourly_rate, plan_rate.hourly_rate as plain_rate,
        segment.starts_at + first_hour * interval '1 hour' as starts_at,
        case when last_hour = hours then until else segment.starts_at + last_hour * interval '1 hour' end as ends_at,
        case when is_open or last_hour < hours then (last_hour - first_hour) * rate
             else billing_amount(rate, segment.starts_at + first_hour * interval '1 hour', until) end as amount
    from approved_segment segment
    join plan_rate on plan_rate.name = plan_name and (on_sale or not is_open)
        and valid_from <= segment.starts_at + (hours - 1) * interval '1 hour' and segment.starts_at < valid_to,
    lateral (
        select case when backups then hourly_rate_with_backups else hourly_rate end as rate,
            case when valid_from <= segment.starts_at then 0
                 else ceil(extract(epoch from valid_from - segment.starts_at) / 3600)::integer end as first_hour,
            case when segment.starts_at + (hours - 1) * interval '1 hour' < valid_to then hours
                 else ceil(extract(epoch from valid_to - segment.starts_at) / 3600)::integer end as last_hour
    ) span
    where first_hour < last_hour
)

-- part: posting
-- What was billed, posted: one ledger entry per wallet, over the whole cents of its carry and of what was billed; no cents, no
-- entry. The same cents come off its balance, and what is left below a cent is carried on. `bill` has a row for each
-- organization that was billed or is past due; the wallet is marked, or its mark cleared, by the same update.
-- The metadata name the period of the hours, by which the charges of an entry are found without an index of their own.
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
            'instances', instances, 'hours', trim_scale(round(hours, 6)), 'exact_amount', amount, 'carry_before', billing_carry,
            'period_start', to_char(first_start at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'period_end', to_char(last_end at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
        %(as_of)s, %(as_of)s
    from bill join payer using (organization_id), lateral (select trunc(billing_carry + amount, 2) as debit) cents
    where debit > 0 and instances > 0
),
posted as (
    update wallets
    set balance = wallets.balance - trunc(wallets.billing_carry + amount, 2),
        billing_carry = wallets.billing_carry + amount - trunc(wallets.billing_carry + amount, 2),
        past_due_since = case when is_past_due then coalesce(wallets.past_due_since, %(as_of)s) end
    from bill join payer using (organization_id)
    where wallets.organization_id between %(first_organization)s and %(last_organization)s
      and wallets.id = payer.wallet_id
      and (instances > 0 or is_past_due <> (wallets.past_due_since is not null))
)

-- name: rates_of_run
-- Every rate that the hours of a run can have, as one document, and its fingerprint.
with
-- include: plan_rates, rates_fingerprint
select coalesce((select jsonb_agg(to_jsonb(plan_rate)) from plan_rate), '[]')::text, (select fingerprint from rates_fingerprint);
