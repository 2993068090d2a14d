-- Reconciliation: differences recomputed under the locks of the wallets, and the decisions that settle them.
--
-- A batch changes balance, carry and ledger in one transaction that holds the wallets of its organizations. So once the wallets
-- of an organization are locked here, in the order of a batch, no posting is half visible: the difference is exact.

-- name: lock_wallets_to_reconcile
-- Lock the wallets of one organization in the order of a batch.
select id from wallets where organization_id = %(organization)s order by organization_id, created_at, id for no key update;

-- name: lock_reconciliation
-- Let one decision at a time look at an organization, which may have no wallet left to lock; ends with the transaction.
select pg_advisory_xact_lock(hashtextextended('containerstacks-billing reconcile ' || %(organization)s, 0));

-- name: balance_difference
-- Balance of the wallets of one currency, less their openings and completed ledger entries; the oldest wallet takes it.
select (array_agg(wallet.id order by wallet.created_at, wallet.id))[1] as wallet_id,
    (array_agg(wallet.balance order by wallet.created_at, wallet.id))[1] as balance,
    sum(wallet.balance) - sum(wallet.billing_opening) - coalesce((
        select sum(amount) from payment_transactions entry
        where entry.organization_id = %(organization)s and entry.status = 'completed' and entry.amount <> 'NaN'
          and ((select to_regclass('hosting_wallets') is null) or entry.metadata ->> 'wallet_type' is distinct from 'hosting')
          and coalesce(upper(entry.currency), '') = coalesce(wallet.code, '')), 0) as difference
from (
    select *, upper(currency) as code from wallets where organization_id = %(organization)s
) wallet
group by wallet.code
having %(wallet)s = any (array_agg(wallet.id));

-- name: move_opening
-- Accept a difference: it becomes part of what the balance was beyond its ledger entries.
update wallets set billing_opening = billing_opening + %(difference)s where id = %(wallet)s;

-- name: restore_balance
-- Restore a balance by its difference.
update wallets set balance = balance - %(difference)s where id = %(wallet)s;

-- name: carry_difference
-- Debits and carries of an organization, less its billed charges, adjustments and accepted differences; and its wallets.
with
-- include: own_entry
select coalesce((select -sum(amount) from own_entry where status = 'completed'), 0)
    + coalesce((select sum(billing_carry) from wallets where organization_id = %(organization)s), 0)
    - coalesce((select sum(total_amount) from vps_billing_cycles
                where run_id is not null and status in ('billed', 'refunded') and organization_id = %(organization)s), 0)
    - coalesce((select sum(amount) from billing_adjustments where organization_id = %(organization)s), 0)
    - coalesce((select sum(amount) from billing_decisions
                where decision = 'accept' and check_name = 'carries' and organization_id = %(organization)s), 0)
        as difference,
    (select array_agg(id order by created_at, id) from wallets where organization_id = %(organization)s) as wallets,
    (select (array_agg(billing_carry order by created_at, id))[1] from wallets
     where organization_id = %(organization)s) as carry;

-- name: restore_carry
-- Set the carry by its difference.
update wallets set billing_carry = billing_carry - %(difference)s where id = %(wallet)s;

-- name: restore_past_due_mark
-- Mark the wallet that pays past due since its oldest past-due charge, or clear the marks where nothing is owed. The wallet that
-- pays is the oldest in the currency of billing: a mark on another would keep the past-due charges from being collected.
with owed as (
    select min(coalesce(past_due_since, billing_period_end)) as since
    from vps_billing_cycles
    where run_id is not null and status = 'failed' and organization_id = %(organization)s
),
right_mark as (
    select wallet.id as wallet_id,
        case when owed.since is not null and wallet.id = payer.wallet_id
             then coalesce(wallet.past_due_since, owed.since) end as since
    from owed, wallets wallet, (
        select (array_agg(id order by created_at, id))[1] as wallet_id
        from wallets where organization_id = %(organization)s and upper(currency) = %(currency)s
    ) payer
    where wallet.organization_id = %(organization)s
)
update wallets
set past_due_since = right_mark.since
from right_mark
where organization_id = %(organization)s and wallets.id = right_mark.wallet_id
  and wallets.past_due_since is distinct from right_mark.since;

-- name: restore_lost_hours
-- Make a usage segment of hours that nothing explains, on the plan of the charge before them, else of the instance; the next
-- run charges it. Nothing is made where a charge or a segment covers a part of them by now.
insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, backups, started_at, ended_at,
    charge_until, closed_at, reason)
select %(organization)s, %(instance)s, instance.label, coalesce(before.plan_id::text, instance.plan_id), 'restored',
    false, %(hours_from)s, %(hours_until)s, %(hours_until)s, billing_clock(), 'restored'
from (select) one
left join vps_instances instance on instance.id = %(instance)s
left join lateral (
    select plan_id from vps_billing_cycles
    where run_id is not null and vps_instance_id = %(instance)s and billing_period_end <= %(hours_from)s
    order by billing_period_end desc limit 1
) before on true
where not exists (select from vps_billing_cycles
                  where run_id is not null and vps_instance_id = %(instance)s
                    and billing_period_start < %(hours_until)s and billing_period_end > %(hours_from)s)
  and not exists (select from billing_usage_segments
                  where instance_id = %(instance)s and started_at < %(hours_until)s and ended_at > %(hours_from)s)
  and coalesce(before.plan_id::text, instance.plan_id) is not null;

-- name: restore_watermark
-- Move a watermark that stands behind what was charged or rated to the end of that. A run does so with the instances that it bills; one
-- that is not billable has no run to mend it.
update vps_instances instance
set last_billed_at = known.rated_until, rated_until = known.rated_until
from (
    select greatest(rated_until, (
            select max(billing_period_end) from vps_billing_cycles
            where run_id is not null and vps_instance_id = vps_instances.id)) as rated_until
    from vps_instances where id = %(instance)s
) known
where organization_id = %(organization)s and id = %(instance)s and isfinite(known.rated_until)
  and coalesce(last_billed_at, created_at) < known.rated_until;

-- name: record_reconciliation
-- Record the decision; one that accepts the same discrepancy a second time changes nothing.
insert into billing_decisions (organization_id, instance_id, wallet_id, decision, check_name, amount, fingerprint, message,
    decided_at, decided_by, reason)
values (%(organization)s, %(instance)s, %(wallet)s, %(decision)s, %(check)s, %(amount)s, %(fingerprint)s, %(message)s,
    billing_clock(), %(decided_by)s, %(reason)s)
on conflict (check_name, fingerprint) where decision = 'accept' and fingerprint is not null do nothing;

-- name: origin_of_difference
-- The first ledger entry of a currency whose recorded balance does not follow from the one before it and its amount, and the
-- last entry that agrees. Entries without recorded balances are passed over.
with
entry as (
    select id, created_at, amount, description, provider_transaction_id,
        metadata ->> 'wallet_type' as wallet_type,
        case when jsonb_typeof(metadata -> 'balance_before') = 'number' then (metadata ->> 'balance_before')::numeric end as before,
        case when jsonb_typeof(metadata -> 'balance_after') = 'number' then (metadata ->> 'balance_after')::numeric end as after
    from payment_transactions
    where organization_id = %(organization)s and status = 'completed' and amount <> 'NaN'
      and coalesce(upper(currency), '') = coalesce((select upper(currency) from wallets where id = %(wallet)s), '')
),
placed as (
    select *, lag(after) over in_order as expected, lag(created_at) over in_order as previous_at,
        lag(amount) over in_order as previous_amount,
        lag(coalesce(starts_with(provider_transaction_id, 'billing-'), false)) over in_order as follows_ours
    from entry window in_order as (order by created_at, id)
)
select id, created_at, before, expected, amount, wallet_type, follows_ours, previous_amount,
    extract(epoch from created_at - previous_at)::float8 as seconds_after_previous
from placed
where before is distinct from expected and before is not null and expected is not null or wallet_type = 'hosting'
order by created_at, id
limit 1;

-- name: last_entry_of_wallet
-- The newest ledger entry of the currency of a wallet, with the balance that it recorded.
select id, created_at,
    case when jsonb_typeof(metadata -> 'balance_after') = 'number' then (metadata ->> 'balance_after')::numeric end as after
from payment_transactions
where organization_id = %(organization)s and status = 'completed'
  and coalesce(upper(currency), '') = coalesce((select upper(currency) from wallets where id = %(wallet)s), '')
order by created_at desc, id desc
limit 1;
