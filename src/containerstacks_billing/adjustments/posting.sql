-- Posting of adjustments: what each wallet bears, one ledger entry per wallet, and past-due charges rated anew in place.
--
-- The preview and the posting read the same parts, so what is shown is what is posted, as far as wallets and charges stay as
-- they are in between. Nothing is remembered from the preview: each posting derives the differences again, under the lock of the
-- wallets, from charges, adjustments and balances as they are then. It holds the lease, so no run stands beside it.

-- part: difference
-- The changes that change something, with the exact amounts of their hours before and after. A credit of more than was charged
-- leaves a rate below nothing, which rounds as its opposite does.
difference as (
    select change.*, sign(old_rate) * billing_amount(abs(old_rate), hours_from, hours_until) as old_amount,
        sign(new_rate) * billing_amount(abs(new_rate), hours_from, hours_until) as new_amount
    from change where answer = 'now' and new_rate <> old_rate
)

-- part: affordable
-- The differences of billed charges, and whether the wallet can bear each: what is given back always, what is charged on top by
-- the start of its hours, then by instance, until the first that the wallet does not hold, exactly and not after flooring.
affordable as (
    select difference.*, new_amount - old_amount as amount, wallet_id, balance, billing_carry,
        coalesce(balance between -100000000000 and 100000000000
            and (new_amount < old_amount
                 or sum(new_amount - old_amount) over (partition by organization_id
                    order by new_amount > old_amount, hours_from, instance_id, charge_id rows unbounded preceding)
                    <= available), false) as is_posted
    from difference left join payer using (organization_id)
    where status = 'billed' and new_amount <> old_amount
)

-- part: adjustment
-- The rows of billing_adjustments that are posted.
adjustment as (
    select %(correction_id)s::bigint, %(order_id)s::bigint, %(posting)s::uuid, charge_id, organization_id, instance_id, hours_from, hours_until,
        old_rate, new_rate, amount,
        case when floor((billing_carry + sum(amount) over (partition by organization_id)) * 100) <> 0
             then billing_batch_uuid(%(posting_key)s, uuid_hash_extended(organization_id, 0)) end,
        %(posted_at)s::timestamptz, %(decided_by)s, %(reason)s
    from affordable where is_posted
)

-- part: repriced
-- Past-due charges, rated anew in place. One of which only some hours change is divided; its first part keeps the row. One that
-- costs nothing any more is settled. Each keeps what it was before (`mark`), so that undoing an order restores it.
past_due_bound as (
    select charge_id, unnest(array[starts_at, hours_from, hours_until, ends_at]) as at from difference where status = 'failed'
),
past_due_piece as (
    select charge_id, at as piece_from, lead(at) over (partition by charge_id order by at) as piece_until
    from (select distinct charge_id, at from past_due_bound) bound
),
past_due_rate as (
    select piece.charge_id, piece.piece_from, piece.piece_until, old.starts_at as first_from,
        coalesce(difference.new_rate, old.hourly_rate) as rate, difference.charge_id is not null as is_changed,
        billing_amount(coalesce(difference.new_rate, old.hourly_rate), piece.piece_from, piece.piece_until) as amount
    from past_due_piece piece
    join (select distinct charge_id, starts_at, hourly_rate from difference where status = 'failed') old using (charge_id)
    left join difference on difference.charge_id = piece.charge_id and difference.hours_from <= piece.piece_from
        and difference.hours_until >= piece.piece_until
    where piece.piece_until is not null
),
past_due_row as (
    select charge.*, piece_from, piece_until, first_from, rate, amount,
        case when not is_changed or amount > 0 then 'failed' else %(settled_status)s end as new_status,
        case when not is_changed then charge.metadata
             when %(correction_id)s::bigint is not null then coalesce(charge.metadata, '{}')
                || jsonb_build_object('correction_id', %(correction_id)s::bigint, 'hourly_rate_before', charge.hourly_rate)
             when %(undoes)s::bigint is not null then case when charge.metadata #> '{billing_order,previous}' <> 'null'
                    then charge.metadata || jsonb_build_object('billing_order', charge.metadata #> '{billing_order,previous}')
                    else charge.metadata - 'billing_order' end
             else coalesce(charge.metadata, '{}') || jsonb_build_object('billing_order', jsonb_build_object(
                'id', %(order_id)s::bigint, 'before', charge.hourly_rate, 'rate', rate, 'marked_since', (
                    select min(past_due_since) from wallets where wallets.organization_id = charge.organization_id),
                'previous', charge.metadata -> 'billing_order')) end as new_metadata
    from past_due_rate join vps_billing_cycles charge on charge.id = charge_id
    where charge.organization_id between %(first_organization)s and %(last_organization)s
),
divided as (
    insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end,
        hourly_rate, total_amount, status, run_id, plan_id, segment_id, past_due_since, metadata, created_at, updated_at)
    select gen_random_uuid(), organization_id, vps_instance_id, piece_from, piece_until, rate, amount, new_status, run_id, plan_id,
        segment_id, past_due_since, new_metadata, created_at, %(posted_at)s
    from past_due_row where piece_from > first_from
),
repriced as (
    update vps_billing_cycles charge
    set billing_period_end = piece_until, hourly_rate = rate, total_amount = past_due_row.amount, status = new_status,
        metadata = new_metadata, updated_at = %(posted_at)s
    from past_due_row
    where charge.organization_id between %(first_organization)s and %(last_organization)s
      and charge.id = past_due_row.id and piece_from = first_from
    returning charge.id
)

-- name: next_organizations
-- The end of the next range of organizations with charges of ours. One probe of the index for each: a history of years
-- costs no more than one of a day.
with recursive place as (
    (select organization_id, 1 as number from vps_billing_cycles
     where run_id is not null and organization_id > %(after)s order by organization_id limit 1)
    union all
    (select (select organization_id from vps_billing_cycles
             where run_id is not null and organization_id > place.organization_id order by organization_id limit 1), number + 1
     from place where organization_id is not null and number < %(organizations)s)
)
select organization_id from place where organization_id is not null order by number desc limit 1;

-- name: lock_wallets_to_adjust
-- Lock the wallets of the range, in the order in which batches lock them.
select id from wallets
where organization_id between %(first_organization)s and %(last_organization)s
order by organization_id, created_at, id
for no key update;

-- part: adjusted
-- What this posting changes, by organization. Rounded down, so what is carried stays between nothing and a cent: a credit of a
-- fraction gives back the whole cent and carries the rest.
adjusted as (
    select payer.*, amount, instances, hours, floor((billing_carry + amount) * 100) / 100 as debit
    from payer join (
        select organization_id, sum(amount) as amount, count(distinct instance_id) as instances,
            coalesce(sum(extract(epoch from hours_until - hours_from)), 0) / 3600 as hours
        from billing_adjustments
        where organization_id between %(first_organization)s and %(last_organization)s and posting = %(posting)s
          and correction_id is not distinct from %(correction_id)s::bigint and order_id is not distinct from %(order_id)s::bigint
        group by organization_id
    ) total using (organization_id)
)

-- name: post_adjustment_entries
-- Write one ledger entry per wallet: a debit or a credit of whole cents. No cents, no entry. A credit has the method that the host
-- gives to adjustments: its reports count every other credit as revenue.
insert into payment_transactions (id, organization_id, amount, currency, payment_method, payment_provider,
    provider_transaction_id, status, description, metadata, created_at, updated_at)
with
-- include: payers, adjusted
select
    billing_batch_uuid(%(posting_key)s, uuid_hash_extended(organization_id, 0)),
    organization_id, -debit, %(currency)s, case when debit > 0 then 'wallet_debit' else 'manual_adjustment' end, 'internal',
    %(entry_key)s, 'completed',
    %(title)s || case when instances = 0 then '' else ' - ' || case when instances = 1 then '1 instance' else
        instances::text || ' instances' end || ' (' || trim_scale(round(hours, 4))::text || 'h'
        || case when %(stated_from)s::timestamptz is null then ''
                else ' from ' || to_char(%(stated_from)s::timestamptz at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC' end || ')' end,
    jsonb_build_object('balance_before', balance, 'balance_after', round(balance - debit, 2),
        %(cause)s::text, coalesce(%(correction_id)s::bigint, %(order_id)s::bigint),
        'instances', instances, 'hours', trim_scale(round(hours, 6)), 'exact_amount', amount, 'carry_before', billing_carry),
    %(posted_at)s, %(posted_at)s
from adjusted
where debit <> 0;

-- name: adjust_wallets
-- Move each balance by the same cents, and carry on what is left below a cent.
with
-- include: payers, adjusted
update wallets
set balance = wallets.balance - debit, billing_carry = wallets.billing_carry + amount - debit
from adjusted
where wallets.organization_id between %(first_organization)s and %(last_organization)s
  and wallets.id = adjusted.wallet_id;

-- name: clear_past_due
-- Clear the mark of wallets that owe nothing any more.
update wallets set past_due_since = null
where organization_id between %(first_organization)s and %(last_organization)s
  and past_due_since is not null
  and not exists (
    select from vps_billing_cycles owed
    where owed.organization_id = wallets.organization_id and owed.status = 'failed' and owed.run_id is not null);
