-- Orders that adjust charges: written down, previewed, posted, listed.

-- name: run_of_order
-- The run whose charges are meant: its instant, and between which instants its charges begin, those included that it made past due.
select run.as_of, run.outcome, min(starts_at), max(starts_at)
from billing_runs run
left join lateral (
    select billing_period_start as starts_at from vps_billing_cycles
    where id between %(first_id)s and %(last_id)s and run_id is not null and past_due_since is null
    union all
    select billing_period_start from vps_billing_cycles
    where run_id >= run.id and past_due_since = run.as_of
    union all
    select billing_period_start from vps_billing_cycles
    where status = 'failed' and run_id is not null and past_due_since = run.as_of
) charge on true
where run.id = %(run)s
group by run.id;

-- name: earliest_start
-- When the earliest charge begins that can reach into a span: an hour before it, unless a charge of several hours does.
select least(%(from)s::timestamptz - interval '1 hour', min(billing_period_start))
from vps_billing_cycles
where run_id is not null and billing_period_end - billing_period_start > interval '1 hour'
  and billing_period_end > %(from)s and billing_period_start < %(until)s;

-- name: instances_in_region
-- The instances of a region, as the host's configuration of each says.
select array_agg(id order by id) from vps_instances instance where to_jsonb(instance) #>> '{configuration,region}' = %(region)s;

-- name: count_uncharged
-- Hours of the span that are not charged yet, of billable instances that are meant: they have a watermark inside it.
select count(*), coalesce(sum(extract(epoch from least(%(until)s, billing_clock()) - greatest(%(from)s, watermark))), 0) / 3600
from vps_instances instance
join billing_policies policy on valid_to = 'infinity',
lateral (select coalesce(last_billed_at, created_at) as watermark) place
where (%(organization)s::uuid is null or organization_id = %(organization)s)
  and (%(instances)s::uuid[] is null or instance.id = any (%(instances)s))
  and (%(plan_id)s::uuid is null or exists (
        select from vps_plans where vps_plans.id = %(plan_id)s
          and instance.plan_id in (vps_plans.id::text, vps_plans.provider_plan_id)))
  and billing_metered_status(status::text, policy) and isfinite(watermark)
  and watermark < least(%(until)s, billing_clock()) and created_at < %(until)s;

-- name: find_order
-- The order of the same scope that is not undone, to go on with.
select id from billing_adjustment_orders given
where kind = %(kind)s and mode = %(mode)s and scope = %(scope)s::jsonb and undoes is not distinct from %(undoes)s::bigint
  and not exists (select from billing_adjustment_orders undoing where undoing.undoes = given.id)
order by id desc limit 1;

-- name: record_order
-- Write down what is about to be adjusted, by whom and why.
insert into billing_adjustment_orders (kind, mode, scope, starts_from, starts_until, undoes, decided_at, decided_by, reason)
values (%(kind)s, %(mode)s, %(scope)s::jsonb, %(starts_from)s, %(starts_until)s, %(undoes)s, %(decided_at)s, %(decided_by)s, %(reason)s)
returning id;

-- name: close_order
-- Note how much wallets could not bear when the order was given last.
update billing_adjustment_orders
set last_posted_at = %(posted_at)s, unposted_charges = %(unposted_charges)s, unposted_amount = %(unposted_amount)s
where id = %(order_id)s;

-- part: change_by_organization
-- What the changes come to, by organization: what is given back or charged on top now, what was done already, what was changed
-- since, what falls off past-due charges, and what the wallet cannot bear. `by_hand` is what the host's adjustments credited since.
change_by_organization as (
    select change.organization_id,
        count(distinct change.charge_id) filter (where status = 'billed' and change.answer = 'now' and new_rate <> old_rate) as charges,
        count(distinct instance_id) filter (where change.answer = 'now' and new_rate <> old_rate) as instances,
        coalesce(sum(hours) filter (where status = 'billed' and change.answer = 'now' and new_rate <> old_rate), 0) as hours,
        coalesce(sum(billing_amount(hourly_rate, hours_from, hours_until))
            filter (where status = 'billed' and change.answer = 'now' and new_rate <> old_rate), 0) as charged,
        coalesce(sum(old_amount) filter (where status = 'billed' and change.answer = 'now' and new_rate <> old_rate), 0) as stands_at,
        coalesce(sum(new_amount - old_amount)
            filter (where status = 'billed' and change.answer = 'now' and new_rate <> old_rate), 0) as amount,
        coalesce(sum(hours) filter (where status = 'failed' and change.answer = 'now' and new_rate <> old_rate), 0) as past_due_hours,
        coalesce(sum(new_amount - old_amount)
            filter (where status = 'failed' and change.answer = 'now' and new_rate <> old_rate), 0) as past_due_amount,
        count(*) filter (where change.answer = 'already') as already_charges,
        coalesce(sum(hours) filter (where change.answer = 'already'), 0) as already_hours,
        count(*) filter (where change.answer = 'changed since') as changed_charges
    from change, lateral (
        select extract(epoch from hours_until - hours_from) / 3600 as hours, sign(old_rate) * billing_amount(abs(old_rate), hours_from, hours_until) as old_amount,
            sign(new_rate) * billing_amount(abs(new_rate), hours_from, hours_until) as new_amount
    ) amounts
    group by change.organization_id
),
change_summary as (
    select changed.*, coalesce(organizations.name, changed.organization_id::text) as name,
        coalesce(unposted_charges, 0) as unposted_charges, coalesce(unposted_amount, 0) as unposted_amount, wallet_id, balance,
        billing_carry, (
            select burn_per_hour from billing_runways runway
            where runway.organization_id = changed.organization_id and runway.wallet_id = payer.wallet_id) as burn_per_hour,
        coalesce((
            select sum(entry.amount) from payment_transactions entry
            where entry.organization_id = changed.organization_id and entry.status = 'completed' and entry.amount > 0
              and entry.payment_method = 'manual_adjustment' and entry.created_at >= %(since)s
              and not coalesce(starts_with(provider_transaction_id, 'billing-'), false)), 0) as by_hand
    from change_by_organization changed
    left join (
        select organization_id, count(*) as unposted_charges, sum(amount) as unposted_amount
        from affordable where not is_posted group by organization_id
    ) unposted on unposted.organization_id = changed.organization_id
    left join payer on payer.organization_id = changed.organization_id
    left join organizations on organizations.id = changed.organization_id
)

-- name: preview_order
-- What an order changes, by organization.
with
-- include: payers, chosen_charge, current_hours, ordered_change, difference, affordable, change_by_organization
select * from change_summary order by organization_id;

-- name: preview_undo
-- What undoing an order changes, by organization.
with
-- include: payers, undone_hours, current_hours, undone_change, difference, affordable, change_by_organization
select * from change_summary order by organization_id;

-- name: post_ordered_adjustments
-- Write the adjustments of an order that the wallets can bear.
insert into billing_adjustments (correction_id, order_id, posting, charge_id, organization_id, instance_id, hours_from, hours_until,
    old_rate, new_rate, amount, payment_transaction_id, created_at, decided_by, reason)
with
-- include: payers, chosen_charge, current_hours, ordered_change, difference, affordable, adjustment
select * from adjustment;

-- name: post_undone_adjustments
-- Write the adjustments that undo those of an order, as far as the wallets can bear them.
insert into billing_adjustments (correction_id, order_id, posting, charge_id, organization_id, instance_id, hours_from, hours_until,
    old_rate, new_rate, amount, payment_transaction_id, created_at, decided_by, reason)
with
-- include: payers, undone_hours, current_hours, undone_change, difference, affordable, adjustment
select * from adjustment;

-- name: reprice_ordered_past_due
-- Rate past-due charges anew, in place.
with
-- include: chosen_charge, current_hours, ordered_change, difference, repriced
select count(*) from repriced;

-- name: mark_undone_past_due
-- Mark the wallets past due again whose charges are about to be, since when they were.
with
-- include: payers, undone_hours, current_hours, undone_change, difference
,
owing as (
    select organization_id, min((metadata #>> '{billing_order,marked_since}')::timestamptz) as since
    from difference where status = 'failed'
    group by organization_id
)
update wallets
set past_due_since = owing.since
from owing join payer using (organization_id)
where wallets.organization_id between %(first_organization)s and %(last_organization)s
  and wallets.id = payer.wallet_id and wallets.past_due_since is null and owing.since is not null;

-- name: reprice_undone_past_due
-- Give past-due charges back the rate from before the order.
with
-- include: undone_hours, current_hours, undone_change, difference, repriced
select count(*) from repriced;

-- name: announce_adjustments
-- One event per organization whose wallet or past-due charges an order moved in this posting.
insert into billing_events (kind, organization_id, wallet_id, occurred_at, payload)
with
-- include: payers, adjusted
select %(event)s, organization_id, wallet_id, %(posted_at)s,
    jsonb_build_object('orderId', %(order_id)s::bigint, 'undoes', %(undoes)s::bigint, 'amount', billing_money_text(-debit),
        'exactAmount', billing_money_text(-amount), 'instances', instances, 'hours', trim_scale(round(hours, 6))::text,
        'reason', %(reason)s::text, 'balance', billing_money_text(balance - debit))
from adjusted
order by organization_id;

-- name: list_orders
-- Orders of a kind, the newest first, with what they moved so far.
select given.id, given.kind, given.mode, given.scope, given.undoes, undoing.id as undone_by, given.decided_at, given.decided_by,
    given.reason, given.last_posted_at, given.unposted_charges, given.unposted_amount,
    coalesce(moved.organizations, 0) as organizations, coalesce(moved.charges, 0) as charges, coalesce(moved.amount, 0) as amount
from billing_adjustment_orders given
left join billing_adjustment_orders undoing on undoing.undoes = given.id
left join lateral (
    select count(distinct organization_id) as organizations, count(*) as charges, sum(amount) as amount
    from billing_adjustments where order_id = given.id
) moved on true
where (%(kind)s::text is null or given.kind = %(kind)s) and (%(order_id)s::bigint is null or given.id = %(order_id)s)
order by given.id desc
limit %(limit)s;

-- name: order_by_organization
-- What an order moved so far, by organization.
select organization_id, coalesce(name, organization_id::text) as name, charges, instances, hours, amount, entries
from (
    select organization_id, count(*) as charges, count(distinct instance_id) as instances,
        coalesce(sum(extract(epoch from hours_until - hours_from)), 0) / 3600 as hours, sum(amount) as amount,
        count(distinct payment_transaction_id) as entries
    from billing_adjustments where order_id = %(order_id)s
    group by organization_id
) moved
left join organizations on organizations.id = organization_id
order by abs(amount) desc, organization_id
limit %(limit)s;

-- name: bounds_of_order
-- Between which instants the charges begin that an order is about.
select kind, mode, starts_from, starts_until from billing_adjustment_orders where id = %(undoes)s;

-- name: post_repayment
-- Pay back to one organization what an audit found, once per organization and order.
insert into billing_adjustments (order_id, posting, organization_id, amount, payment_transaction_id, created_at, decided_by, reason)
select %(order_id)s, %(posting)s, %(organization)s, -%(amount)s::numeric,
    billing_batch_uuid(%(posting_key)s, uuid_hash_extended(%(organization)s, 0)), %(posted_at)s, %(decided_by)s, %(reason)s
where exists (select from wallets where organization_id = %(organization)s and upper(currency) = %(currency)s)
on conflict do nothing;
