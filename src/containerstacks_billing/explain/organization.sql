-- An organization as an explanation shows it: its wallets, what moved them, and what is billed at present.

-- name: organization_record
-- The organization, if it is still there, and whether charges of ours are.
select %(organization)s::uuid as organization_id, organization.id is not null as exists, organization.name,
    exists (select from vps_billing_cycles
            where organization_id = %(organization)s and run_id is not null) as has_charges
from (values (true)) one
left join organizations organization on organization.id = %(organization)s;

-- name: wallets_of_organization
-- Its wallets, the oldest first, which is the one that pays in its currency.
select id as wallet_id, upper(currency) as currency, balance, billing_opening as opening, billing_carry as carry, past_due_since
from wallets
where organization_id = %(organization)s
order by created_at, id;

-- name: entries_by_kind
-- What its completed ledger entries come to, by currency and kind.
with
-- include: entry_kind
select currency, kind, count(*) as entries, sum(amount) as amount
from entry_kind
where organization_id between %(first_organization)s and %(last_organization)s
group by currency, kind
order by currency, kind;

-- name: past_due_of_organization
-- What it owes: charges that its wallet could not pay.
select count(*) as charges, count(distinct vps_instance_id) as instances, coalesce(sum(total_amount), 0) as amount,
    min(billing_period_start) as oldest
from vps_billing_cycles
where organization_id = %(organization)s and status = 'failed' and run_id is not null;

-- name: instances_of_organization
-- Its instances at present and the reason why one is not billed; the ones that are not first.
select instance.id as instance_id, instance.label, instance.status,
    (select billing_metered_status(coalesce(instance.lasting_status, instance.status), policy) from billing_policies policy
     where policy.valid_from <= %(at)s and %(at)s < policy.valid_to) as billable,
    quarantine.reason, quarantine.detail,
    case when coalesce(last_billed_at, created_at) between '1900-01-01' and '9998-01-01'
         then coalesce(last_billed_at, created_at) end as watermark
from vps_instances instance
left join lateral (
    select reason, detail from billing_quarantine
    where organization_id = instance.organization_id and instance_id = instance.id
    order by segment_id limit 1
) quarantine on true
where instance.organization_id = %(organization)s
order by quarantine.reason, 4, instance.label, instance.id
limit %(limit)s;
