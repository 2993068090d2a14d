-- Past-due charges: `failed` rows of ours, one per run, instance, unbroken segment and rate, at a frozen price. They never
-- grow. (Rows of several runs, which earlier versions let grow, are read and paid in the same way.)
--
-- Why what is due is first recorded as past due and then paid: so there is one place, and one order, that decides what is paid
-- first, over old charges and those of this run alike.

-- part: past_due
-- The past-due charges of the wallets that are marked, with the whole hours and the last fraction that each consists of.
past_due as (
    select charge.*, available, billing_carry,
        ceil(extract(epoch from billing_period_end - billing_period_start) / 3600)::integer as hours,
        sum(total_amount) over (partition by organization_id) as owed
    from vps_billing_cycles charge join payer using (organization_id)
    where charge.organization_id between %(first_organization)s and %(last_organization)s
      and charge.status = 'failed' and charge.run_id is not null
      and payer.past_due_since is not null and available is not null
)

-- name: pay_past_due
-- Pay what is past due: oldest hour first, then by instance, whole hours, until the first that does not fit; what costs nothing
-- is always paid. A charge that is paid in part keeps its paid hours; the rest becomes a past-due charge of its own. Only a
-- wallet that can pay its oldest hour, and not everything, is looked at hour by hour. Posts what was paid, and clears the mark of
-- the wallets that owe nothing any more.
with
-- include: payers, past_due
,
oldest as (
    select distinct on (organization_id) organization_id,
        case when hours = 1 then total_amount else hourly_rate end as oldest_amount
    from past_due
    where owed > available and available > 0 and total_amount > 0
    order by organization_id, billing_period_start, vps_instance_id
),
hour as (
    select id, organization_id, available, hour_amount,
        sum(hour_amount) over (partition by organization_id order by starts_at, vps_instance_id
            rows unbounded preceding) as paid_so_far
    from past_due join oldest using (organization_id), generate_series(0, hours - 1) as number, lateral (
        select billing_period_start + number * interval '1 hour' as starts_at,
            case when number = hours - 1 then total_amount - number * hourly_rate else hourly_rate end as hour_amount
    ) one
    where oldest_amount <= available and total_amount > 0
),
paid as (
    select id, hours as paid_hours from past_due where owed <= available or total_amount = 0
    union all
    select id, count(*)::integer from hour where paid_so_far <= available group by id
),
settled as materialized (
    select past_due.*, paid_hours,
        case when paid_hours = hours then total_amount else paid_hours * hourly_rate end as paid_amount,
        billing_period_start + paid_hours * interval '1 hour' as paid_until,
        paid_hours = hours as is_whole,
        -- What is described for invoices is described anew: the charge may be divided here, and an order may have rated it since.
        case when jsonb_typeof(metadata -> 'backup_hourly_rate') = 'number'
             then least((metadata ->> 'backup_hourly_rate')::numeric, hourly_rate) end as backup_rate
    from paid join past_due using (id)
),
bill as materialized (
    select organization_id, coalesce(owing.charges, 0) > count(settled.id) filter (where is_whole) as is_past_due,
        coalesce(sum(paid_amount), 0) as amount, count(distinct vps_instance_id) as instances,
        coalesce(sum(extract(epoch from case when is_whole then billing_period_end else paid_until end - billing_period_start)), 0)
            / 3600 as hours,
        min(settled.billing_period_start) as first_start,
        max(case when is_whole then billing_period_end else paid_until end) as last_end,
        (array_agg(vps_instance_id))[1] as one_instance
    from payer
    left join (select organization_id, count(*) as charges from past_due group by organization_id) owing using (organization_id)
    left join settled using (organization_id)
    where payer.past_due_since is not null and payer.available is not null
    group by organization_id, owing.charges
),
rest as (
    insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end,
        hourly_rate, total_amount, status, run_id, plan_id, segment_id, past_due_since, metadata, created_at, updated_at)
    select
        billing_batch_uuid(%(batch_key)s,
            uuid_hash_extended(vps_instance_id, hashfloat8extended(date_part('epoch', paid_until), 0))),
        organization_id, vps_instance_id, paid_until, billing_period_end, hourly_rate, total_amount - paid_amount,
        'failed', %(run_id)s, plan_id, segment_id, past_due_since,
        case when backup_rate is null then settled.metadata else settled.metadata || jsonb_build_object(
            'hours_charged', trim_scale(round(extract(epoch from billing_period_end - paid_until) / 3600, 6)),
            'base_hourly_rate', trim_scale(settled.hourly_rate - backup_rate), 'backup_hourly_rate', trim_scale(backup_rate)) end,
        created_at, %(as_of)s
    from settled where not is_whole
),
billed as (
    update vps_billing_cycles charge
    set status = 'billed', run_id = %(run_id)s, past_due_batch = %(batch)s, total_amount = paid_amount,
        billing_period_end = case when is_whole then charge.billing_period_end else paid_until end,
        payment_transaction_id = case when trunc(settled.billing_carry + amount, 2) > 0
            then billing_batch_uuid(%(batch_key)s, uuid_hash_extended(charge.organization_id, 0)) end,
        metadata = case when backup_rate is null then charge.metadata else charge.metadata || jsonb_build_object(
            'hours_charged', trim_scale(round(extract(epoch from case when is_whole then settled.billing_period_end else paid_until end - settled.billing_period_start) / 3600, 6)),
            'base_hourly_rate', trim_scale(settled.hourly_rate - backup_rate), 'backup_hourly_rate', trim_scale(backup_rate)) end,
        updated_at = %(as_of)s
    from settled join bill using (organization_id)
    -- The status is repeated so that the index of what is past due is read, and not all that was ever charged.
    where charge.organization_id between %(first_organization)s and %(last_organization)s
      and charge.status = 'failed' and charge.run_id is not null
      and charge.id = settled.id
),
cleared as (
    -- Another wallet of an organization may bear the mark, from before an older one became the wallet that pays.
    update wallets set past_due_since = null
    where organization_id between %(first_organization)s and %(last_organization)s
      and past_due_since is not null
      and not exists (select from payer where wallet_id = wallets.id)
      and not coalesce((select is_past_due from bill where bill.organization_id = wallets.organization_id),
        exists (select from vps_billing_cycles charge
                where charge.organization_id = wallets.organization_id and charge.status = 'failed' and charge.run_id is not null))
),
-- include: posting
select coalesce(sum(instances), 0)::bigint as instances, coalesce(sum(hours), 0) as hours, coalesce(sum(amount), 0) as amount
from bill;
