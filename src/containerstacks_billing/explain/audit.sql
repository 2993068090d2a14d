-- Audit of what the host's own hourly billing took: debits in the ledger beside the hours that its rows cover.
--
-- Four sources, none of which is complete by itself. A row of the host says which hours were billed, at which rate; it went with its
-- instance when that was deleted before adoption. A debit says a label and a number of hours; it stays, whatever became of the
-- instance. The wallet says what was really moved: the host writes absolute balances, so of two debits at once one may be lost,
-- which the opening of the wallet shows. The link from a row to a debit was searched by label and may name the debit of another
-- row, so hours are compared by organization and label, as sums.
--
-- What cannot be told apart is not guessed: a debit that no row explains is `doubled` only where every instance of that label that
-- was ever created is still there (as many creation debits as instances); otherwise its hours may be those of a deleted one.

-- part: host_row
-- The host's rows with the part of each that an earlier row of the instance, or a charge of ours, covers. Less than a second is no
-- overlap: the host cuts watermarks to milliseconds. Rows are compared with all others, and counted from `since` on.
host_row as (
    select billed.*, hours - repeated as fresh, coalesce(recorded_at >= %(since)s, true) as counts
    from (
        select each.*, case when overlap < 1.0 / 3600 then 0 when overlap > hours - 1.0 / 3600 then hours else overlap end as repeated
        from (
            select ordered.*, case when billed_until > starts_at
                    then extract(epoch from least(billed_until, ends_at) - starts_at) / 3600 else 0 end
                + coalesce(case when ends_at > ours_since then (
                    select sum(extract(epoch from least(billing_period_end, ends_at)
                            - greatest(billing_period_start, starts_at, billed_until)) / 3600)
                    from vps_billing_cycles ours
                    where ours.organization_id = ordered.organization_id and ours.vps_instance_id = ordered.instance_id
                      and ours.run_id is not null and billing_period_start < ends_at
                      and billing_period_end > greatest(starts_at, billed_until)) end, 0) as overlap
            from (
                select organization_id, vps_instance_id as instance_id, billing_period_start as starts_at, billing_period_end as ends_at,
                    hourly_rate as rate, status, payment_transaction_id as entry_id, coalesce(created_at, billing_period_end) as recorded_at,
                    extract(epoch from billing_period_end - billing_period_start) / 3600 as hours,
                    max(billing_period_end) over (partition by organization_id, vps_instance_id
                        order by billing_period_start, id rows between unbounded preceding and 1 preceding) as billed_until
                from vps_billing_cycles
                where organization_id between %(first_organization)s and %(last_organization)s
                  and run_id is null and status in ('billed', 'refunded')
                  and billing_period_start between '1900-01-01' and billing_period_end and billing_period_end < '9998-01-01'
                  and billing_period_start < billing_period_end and hourly_rate between 0 and 1000000
            ) ordered
            left join (
                select organization_id, vps_instance_id as instance_id, min(billing_period_start) as ours_since
                from vps_billing_cycles
                where organization_id between %(first_organization)s and %(last_organization)s and run_id is not null
                group by organization_id, vps_instance_id
            ) ours using (organization_id, instance_id)
        ) each
    ) billed
)

-- part: named
-- The label of every instance that is there, or that left a segment.
named as (
    select id as instance_id, label, created_at from vps_instances
    union all
    select * from (
        select distinct on (instance_id) instance_id, label, null::timestamptz
        from billing_usage_segments
        where not exists (select from vps_instances where id = instance_id)
        order by instance_id, started_at desc
    ) gone
)

-- part: debit
-- The host's debits for hours, and for the creation of an instance, with the label and the hours that they state. A label that no
-- instance of the organization has any more is replaced by that of the instance whose row names the debit.
instance_here as (
    select organization_id, instance_id, label, coalesce(created_at, first_at) as born_at, periods > 0 or exists (
            select from vps_billing_cycles ours
            where ours.organization_id = present.organization_id and ours.vps_instance_id = present.instance_id
              and run_id is not null) as is_billed
    from (
        select organization_id, instance_id, min(starts_at) as first_at, count(starts_at) as periods
        from (
            select organization_id, instance_id, starts_at from host_row
            union all
            select organization_id, id, null from vps_instances
            where organization_id between %(first_organization)s and %(last_organization)s
        ) either
        group by organization_id, instance_id
    ) present
    join named using (instance_id)
),
label_here as (
    select organization_id, label, count(*) as instances from instance_here group by organization_id, label
),
debit as (
    select stated.organization_id, stated.id as entry_id, -amount as amount, posted_at, hours, is_creation,
        coalesce(label_here.label, linked.label, stated.label) as label
    from (
        select entry_kind.*, hourly[2]::integer as hours, creation is not null as is_creation, coalesce(hourly[1], creation[1]) as label
        from entry_kind, lateral (
            select regexp_match(description, '^VPS Hourly Billing - (.*) \((\d{1,6})h\)$') as hourly,
                regexp_match(description, '^VPS Creation - (.*) \(Initial Hour\)$') as creation
            offset 0
        ) parsed
        where organization_id between %(first_organization)s and %(last_organization)s
          and kind = 'host billing' and currency = %(currency)s
          and (description like 'VPS Hourly Billing - %%' or description like 'VPS Creation - %%')
          -- A fee that paid for a first hour which we did not charge is neither due nor doubled.
          and not (creation is not null and exists (
            select from billing_usage_segments paid
            where paid.organization_id = entry_kind.organization_id and paid.label = creation[1] and reason = 'creation'
              and posted_at between started_at - interval '10 minutes' and started_at + interval '10 minutes'))
    ) stated
    left join label_here on label_here.organization_id = stated.organization_id and label_here.label = stated.label
    left join (
        select entry_id, min(label) as label from host_row join named using (instance_id) where entry_id is not null group by entry_id
    ) linked on label_here.label is null and linked.entry_id = stated.id
)

-- name: audit_organizations
-- What the host took from each organization, divided by what is known of it; the wallet's part is read with audit_wallets.
with
-- include: entry_kind, host_row, named, debit
,
row_by_label as (
    select organization_id, coalesce(named.label, '') as label, count(*) as periods, sum(fresh) filter (where status = 'billed') as hours,
        coalesce(sum(rate * fresh) filter (where status = 'billed'), 0) as due,
        coalesce(sum(rate * repeated) filter (where status = 'billed'), 0) as repeated,
        coalesce(sum(rate * host_row.hours) filter (where status <> 'billed'), 0) as given_back,
        sum(host_row.hours) as row_hours, sum(rate * host_row.hours) as row_cost
    from host_row
    left join named using (instance_id)
    where counts
    group by organization_id, coalesce(named.label, '')
),
debit_by_label as (
    select organization_id, coalesce(debit.label, '') as label,
        coalesce(sum(amount) filter (where not is_creation and counts), 0) as amount,
        coalesce(sum(debit.hours) filter (where counts), 0) as debit_hours,
        count(*) filter (where is_creation) as creations,
        coalesce(sum(amount) filter (where is_creation and counts and first_hour), 0) as creation_hours,
        coalesce(sum(amount) filter (where is_creation and counts and not first_hour), 0) as creations_unknown,
        count(*) filter (where is_creation and counts and not first_hour) as creations_unexplained
    from debit, lateral (
        select coalesce(posted_at >= %(since)s, true) as counts, is_creation and exists (
            select from instance_here
            where instance_here.organization_id = debit.organization_id and instance_here.label = debit.label and is_billed
              and posted_at between born_at - interval '10 minutes' and born_at + interval '10 minutes') as first_hour
    ) of_debit
    group by organization_id, coalesce(debit.label, '')
),
by_label as (
    select organization_id, coalesce(periods, 0) as periods, coalesce(hours, 0) as hours, coalesce(due, 0) as due,
        coalesce(amount, 0) + coalesce(creation_hours, 0) + coalesce(creations_unknown, 0) as ledger,
        coalesce(creation_hours, 0) as creation_hours,
        coalesce(repeated, 0) + case when is_told then round(surplus * row_cost / row_hours, 8) else 0 end as doubled,
        coalesce(given_back, 0) + coalesce(creations_unknown, 0)
            + case when surplus > 0 and not is_told then round(amount * surplus / debit_hours, 8) else 0 end as unknown_amount,
        case when surplus > 0 and not is_told then surplus else 0 end + coalesce(creations_unexplained, 0) as unexplained_hours
    from row_by_label
    full join debit_by_label using (organization_id, label)
    left join label_here using (organization_id, label),
    lateral (
        select greatest(0, coalesce(debit_hours, 0) - coalesce(row_hours, 0)) as surplus,
            coalesce(row_hours > 0 and creations = instances, false) as is_told
    ) compared
),
failed as (
    select organization_id, sum(rate * (
            select sum(extract(epoch from upper(free) - lower(free))) / 3600 from unnest(tried - covered) free
            where upper(free) - lower(free) >= interval '1 second')) as failed_and_free
    from (
        select organization_id, vps_instance_id, max(hourly_rate) filter (where run_id is null and status = 'failed') as rate,
            range_agg(tstzrange(billing_period_start, billing_period_end))
                filter (where run_id is null and status = 'failed') as tried,
            coalesce(range_agg(tstzrange(billing_period_start, billing_period_end))
                filter (where run_id is not null or status <> 'failed'), '{}') as covered
        from vps_billing_cycles
        where organization_id between %(first_organization)s and %(last_organization)s
          and billing_period_start between '1900-01-01' and billing_period_end and billing_period_end < '9998-01-01'
          and hourly_rate between 0 and 1000000
        group by organization_id, vps_instance_id
        having bool_or(run_id is null and status = 'failed' and coalesce(created_at >= %(since)s, true))
    ) tried
    group by organization_id
),
summed as (
    select organization_id, sum(periods) as periods, sum(hours) as hours, sum(due) as due, sum(ledger) as ledger, sum(doubled) as doubled,
        sum(creation_hours) as creation_hours, sum(unknown_amount) as unknown_amount, sum(unexplained_hours) as unexplained_hours
    from by_label
    group by organization_id
)
select organization_id, organizations.name as organization, coalesce(periods, 0)::bigint as periods, coalesce(hours, 0) as hours,
    coalesce(due, 0) as due, coalesce(ledger, 0) as ledger, coalesce(doubled, 0) as doubled, coalesce(creation_hours, 0) as creation_hours,
    coalesce(ledger - due - doubled - creation_hours - unknown_amount, 0) as rounding, coalesce(unknown_amount, 0) as unknown_amount,
    coalesce(failed_and_free, 0) as failed_and_free, coalesce(unexplained_hours, 0) as unexplained_hours
from summed
full join failed using (organization_id)
left join organizations on organizations.id = organization_id
where periods > 0 or ledger <> 0 or failed_and_free > 0
order by organization_id;

-- name: audit_wallets
-- The wallets in the currency by organization: what the oldest was beyond its entries when billing first saw it, less the
-- differences that were accepted since; the same at `since`, by the balance that the last entry before it states (null: it
-- states none); whether it is younger than a debit of the host; and what an audit credited already.
select oldest.organization_id, wallets, wallet.id as wallet_id, billing_opening - coalesce((
        select sum(amount) from billing_decisions
        where decision = 'accept' and check_name = 'balances' and billing_decisions.wallet_id = wallet.id), 0) as lost,
    case when %(since)s::timestamptz is null then 0 else (
        select case when sum(amount) is null then 0
            when jsonb_typeof((array_agg(metadata order by created_at desc, id desc))[1] -> 'balance_after') = 'number'
            then ((array_agg(metadata order by created_at desc, id desc))[1] ->> 'balance_after')::numeric - sum(amount) end
        from payment_transactions entry
        where entry.organization_id = oldest.organization_id and status = 'completed' and amount <> 'NaN'
          and upper(currency) = %(currency)s and entry.created_at < %(since)s
          and ((select to_regclass('hosting_wallets') is null) or metadata ->> 'wallet_type' is distinct from 'hosting')
    ) end as lost_before,
    exists (select from payment_transactions entry
     where entry.organization_id = oldest.organization_id and payment_method = 'wallet_debit'
       and coalesce(provider_transaction_id, '') not like 'billing-%%' and entry.created_at < wallet.created_at) as is_younger,
    coalesce((select sum(amount) from payment_transactions entry
     where entry.organization_id = oldest.organization_id and status = 'completed' and upper(currency) = %(currency)s
       and starts_with(provider_transaction_id, 'billing-audit-')), 0) as credited
from (
    select organization_id, count(*) as wallets, (array_agg(id order by created_at, id))[1] as wallet_id
    from wallets
    where organization_id between %(first_organization)s and %(last_organization)s and upper(currency) = %(currency)s
    group by organization_id
) oldest
join wallets wallet on wallet.id = wallet_id;
