-- Columns of billing in tables of the host that a migration of the host dropped, made again from the books (lost_columns.py).
-- Each part adds one column and fills in what is known of it. Nothing was billed meanwhile: a run refuses without them.

-- column: wallets.billing_carry
-- What was billed beyond what was debited, below a cent, on the oldest wallet. Another difference is left to `verify`.
alter table wallets add column billing_carry numeric(12, 8) not null default 0
    constraint wallets_carry_below_a_cent check (billing_carry >= 0 and billing_carry < 0.01);
with moved as (
    select organization_id, total_amount as amount from vps_billing_cycles where run_id is not null and status in ('billed', 'refunded')
    union all
    select organization_id, amount from billing_adjustments
    union all
    select organization_id, amount from billing_decisions where decision = 'accept' and check_name = 'carries' and amount is not null
    union all
    select organization_id, amount from payment_transactions
    where status = 'completed' and amount <> 'NaN'
      and (provider_transaction_id ~ '^billing-(run|adjustment|reversal|credit|audit)-'
           or payment_method = 'wallet_debit' and jsonb_typeof(metadata -> 'run_id') = 'number')
),
carried as (
    select organization_id, sum(amount) as carry from moved group by organization_id
),
oldest as (
    select distinct on (organization_id) id, organization_id from wallets order by organization_id, created_at, id
)
update wallets set billing_carry = carry
from oldest join carried using (organization_id)
where wallets.id = oldest.id and carry > 0 and carry < 0.01;

-- column: wallets.billing_opening
-- What the balance is beyond the ledger entries at this moment. So a difference that `verify` had found before is no longer one.
alter table wallets add column billing_opening numeric not null default 0;
with entry as (
    select organization_id, upper(currency) as code, sum(amount) as total
    from payment_transactions
    where status = 'completed' and amount <> 'NaN'
      and (to_regclass('hosting_wallets') is null or metadata ->> 'wallet_type' is distinct from 'hosting')
    group by 1, 2
),
ranked as (
    select id, organization_id, upper(currency) as code, coalesce(nullif(balance, 'NaN'), 0) as balance,
        row_number() over (partition by organization_id, upper(currency) order by created_at, id) as age_rank
    from wallets
)
update wallets
set billing_opening = ranked.balance - case when age_rank = 1 then coalesce(total, 0) else 0 end
from ranked left join entry on entry.organization_id = ranked.organization_id and entry.code is not distinct from ranked.code
where wallets.id = ranked.id;

-- column: wallets.past_due_since
-- Since the oldest past-due charge, where the organization has one wallet. Of several the one that pays is marked by `reconcile`.
alter table wallets add column past_due_since timestamptz;
update wallets set past_due_since = owed.since
from (
    select organization_id, min(coalesce(past_due_since, billing_period_end)) as since
    from vps_billing_cycles where run_id is not null and status = 'failed' group by organization_id
) owed
where wallets.organization_id = owed.organization_id
  and not exists (select from wallets other where other.organization_id = owed.organization_id and other.id <> wallets.id);

-- column: vps_instances.rated_from
-- The first instant of which charges or segments are known, else the watermark.
alter table vps_instances add column rated_from timestamptz;
select set_config('containerstacks_billing.advancing', 'on', true);
with first_known as (
    select instance_id, min(starts_at) as starts_at
    from (
        select vps_instance_id as instance_id, billing_period_start as starts_at from vps_billing_cycles where run_id is not null
        union all
        select instance_id, started_at from billing_usage_segments
        union all
        select id, coalesce(last_billed_at, created_at) from vps_instances
    ) one
    where isfinite(starts_at)
    group by instance_id
)
update vps_instances set rated_from = starts_at from first_known where id = instance_id;

-- column: vps_instances.rated_until
-- The watermark, or the end of what is charged or noted where that is later.
alter table vps_instances add column rated_until timestamptz;
select set_config('containerstacks_billing.advancing', 'on', true);
with last_known as (
    select instance_id, max(ends_at) as ends_at
    from (
        select vps_instance_id as instance_id, billing_period_end as ends_at from vps_billing_cycles where run_id is not null
        union all
        select instance_id, charged_until from billing_charged_until
        union all
        select id, coalesce(last_billed_at, created_at) from vps_instances
    ) one
    where isfinite(ends_at)
    group by instance_id
)
update vps_instances set rated_until = ends_at, last_billed_at = greatest(coalesce(last_billed_at, created_at), ends_at)
from last_known where id = instance_id;

-- column: vps_instances.pending_segments
-- What a change had closed since the last run is not known any more: `verify` names the hours, `reconcile` charges them or not.
alter table vps_instances add column pending_segments billing_pending_segment[];

-- column: vps_instances.sealed_by
-- Empty, so that the next run compares every row with the charges.
alter table vps_instances add column sealed_by xid;

-- column: vps_instances.lasting_status
-- Empty: what stands in a transient status now is judged by it until it changes.
alter table vps_instances add column lasting_status text;
