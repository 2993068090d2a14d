-- The transaction of a batch: fence, lock, charge, post, record. README.md beside this file has the argument why no hour
-- is charged twice and none is lost. What is due stands in due.sql, the ordinary hour in single_hour.sql, the payment of
-- past-due charges in past_due.sql.

-- name: fence
-- Hold the lease for the length of the transaction; no row means that it was taken over.
select true from billing_leases
where name = 'billing' and fencing_token = %(fencing_token)s and nonce = %(nonce)s
for key share;

-- name: lock_organizations
-- Lock the organizations of the batch in order, before their wallets: the ledger entries need that lock, and a host that
-- deletes an organization takes it first too.
select billing_lock_organizations(%(first_organization)s, %(last_organization)s);

-- name: lock_wallets
-- Lock the wallets of the batch in order; every other biller of these organizations waits here. Returns whether any of them
-- is past due, and whether there are closed segments to charge.
select count(*) filter (where past_due_since is not null) > 0 as past_due,
    exists (select from billing_usage_segments
            where organization_id between %(first_organization)s and %(last_organization)s
              and outcome is null and closed_at <= %(as_of)s) as segments
from (
    select past_due_since from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
    order by organization_id, created_at, id
    for no key update
) wallet;

-- name: charge
-- Charge all that is due, move the watermarks, settle the segments and post: billed where the wallet owes nothing and covers all
-- of it, or where it costs nothing; past due where not, for `pay_past_due` to pay what the wallet can.
--
-- A watermark moves only from the start of what is charged to its end, over pieces without a gap, in the row as it stands when
-- it is locked. Where the host changed the instance since, it does not move, and `is_complete` is false: then nothing of the
-- batch may be committed. The same holds for a row that billing did not write itself and that was not compared (returned.sql).
with
-- include: payers, given_rates, released, pieces
,
wallet as materialized (
    select organization_id, total, (total = 0 or total <= available) and past_due_since is null as covered,
        case when trunc(billing_carry + total, 2) > 0
             then billing_batch_uuid(%(batch_key)s, uuid_hash_extended(organization_id, 0)) end as entry_id
    from (select organization_id, sum(amount) as total from piece group by organization_id) due
    join payer using (organization_id)
    where available is not null
),
charged as materialized (select * from piece join wallet using (organization_id)),
open_period as (
    select organization_id, instance_id, min(starts_at) as starts_at, max(ends_at) as ends_at,
        sum(ends_at - starts_at) = max(ends_at) - min(starts_at) as is_whole
    from charged where segment_id is null
    group by organization_id, instance_id
),
advanced as (
    update vps_instances instance
    set last_billed_at = ends_at, rated_until = ends_at, sealed_by = pg_current_xact_id()::xid
    from open_period
    where instance.organization_id between %(first_organization)s and %(last_organization)s
      and instance.organization_id = open_period.organization_id and instance.id = instance_id and is_whole
      and sealed_by in (instance.xmin, pg_current_xact_id()::xid)
      and coalesce(last_billed_at, created_at) = starts_at
    returning instance.id
),
charged_segment as (
    select distinct organization_id, segment_id from charged where segment_id is not null
),
settled as (
    update billing_usage_segments segment
    set outcome = 'charged', run_id = %(run_id)s
    from charged_segment
    where segment.organization_id between %(first_organization)s and %(last_organization)s
      and segment.organization_id = charged_segment.organization_id and segment.id = segment_id and outcome is null
    returning segment.id
),
written as (
    insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate,
        total_amount, status, payment_transaction_id, run_id, plan_id, segment_id, past_due_since, metadata, created_at, updated_at)
    select
        billing_batch_uuid(%(batch_key)s,
            uuid_hash_extended(instance_id, hashfloat8extended(date_part('epoch', starts_at), 0))),
        organization_id, instance_id, starts_at, ends_at, hourly_rate, amount,
        case when covered then 'billed' else 'failed' end,
        case when covered then entry_id end,
        %(run_id)s, plan_id, segment_id,
        case when not covered then %(as_of)s end,
        case when %(has_invoices)s then jsonb_build_object(
            'hours_charged', trim_scale(round(extract(epoch from ends_at - starts_at) / 3600, 6)),
            'base_hourly_rate', trim_scale(plain_rate), 'backup_hourly_rate', trim_scale(hourly_rate - plain_rate),
            'backup_frequency', case when hourly_rate > plain_rate then coalesce(
                (select to_jsonb(instance) ->> 'backup_frequency' from vps_instances instance where id = instance_id), 'weekly')
                else 'none' end,
            'vps_label', coalesce(
                (select label from billing_usage_segments segment where segment.id = segment_id),
                (select label from vps_instances where id = instance_id))) end,
        %(as_of)s, %(as_of)s
    from charged
    order by organization_id, starts_at, instance_id
),
bill as materialized (
    select organization_id, not covered as is_past_due,
        coalesce(sum(amount) filter (where covered), 0) as amount,
        count(distinct instance_id) filter (where covered) as instances,
        coalesce(sum(extract(epoch from ends_at - starts_at)) filter (where covered), 0) / 3600 as hours,
        min(starts_at) filter (where covered) as first_start, max(ends_at) filter (where covered) as last_end,
        (array_agg(instance_id))[1] as one_instance
    from charged group by organization_id, covered
),
-- include: posting
select (select count(*) from open_period) = (select count(*) from advanced)
        and (select count(*) from charged_segment) = (select count(*) from settled) as is_complete,
    coalesce(bool_or(is_past_due), false) as short, null::uuid[] as unsealed,
    coalesce(sum(instances), 0)::bigint as instances, coalesce(sum(hours), 0) as hours, coalesce(sum(amount), 0) as amount
from bill;

-- name: record_batch
-- Add the batch to the run row, if the run is still open, and the clock was not set back into the hours that it bills: a host
-- that changes an instance then notes an instant from before them, its watermark stays where it is, and the comparison cannot
-- notice the change. Returns whether the rates are still those that the charges were derived by: a price that was dated before
-- the run was there to see, and is committed since, begins among the hours of this batch.
with
-- include: rates_fingerprint
update billing_runs
set batches = batches + 1, instances_billed = instances_billed + %(batch_instances)s, hours = hours + %(batch_hours)s,
    amount = amount + %(batch_amount)s
where id = %(run_id)s and outcome is null and as_of < billing_clock() + interval '1 hour'
returning %(rates_fingerprint)s = (select fingerprint from rates_fingerprint);

-- name: lock_holders
-- The organizations of a range with a row that a transaction of another session has locked or changed, and that session. Who
-- may not see the activity of others reads its process id alone.
with holder as (
    select transactionid, pid from pg_locks
    where locktype = 'transactionid' and mode = 'ExclusiveLock' and granted and pid <> pg_backend_pid()
),
touched as (
    select id as organization_id, xmax from organizations where id between %(first_organization)s and %(last_organization)s
    union all
    select organization_id, xmax from wallets
    where organization_id between %(first_organization)s and %(last_organization)s
    union all
    select organization_id, xmax from vps_instances
    where organization_id between %(first_organization)s and %(last_organization)s
    union all
    select organization_id, xmax from billing_usage_segments
    where organization_id between %(first_organization)s and %(last_organization)s and outcome is null
)
select distinct on (organization_id) organization_id, 'process ' || pid::text
    || coalesce(' of ' || usename, '') || coalesce(' (' || nullif(application_name, '') || ')', '')
    || coalesce(', in a transaction since ' || to_char(xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', '')
from touched
join holder on holder.transactionid = touched.xmax
left join pg_stat_activity using (pid)
order by organization_id, pid;
