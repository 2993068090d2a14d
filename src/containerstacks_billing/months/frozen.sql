-- Closed months. One derivation serves freezing, the proof and the export, and reads only rows that do not change any more.
--
-- An hour belongs to the month in which it starts. What was billed for it by runs up to the closing of that month is frozen there.
-- What is billed later, as when a past-due charge is paid, is a late line of the month in which it is billed: no hour
-- counts twice, and none is left out. Past-due rows that cost nothing are settled in place, without a run, and are no line.

-- part: month_line
-- The billed hours of a month, by charge, each with its line as the export writes it.
counted_month as (
    select starts_at, ends_at, last_run_id as after_run, true as late from billing_months where ends_at <= %(from)s
    union all
    select %(from)s, %(until)s, 0, false
),
month_line as materialized (
    select charge.*, first_at, last_at, amount, extract(epoch from last_at - first_at) as seconds,
        concat_ws(',', organization_id::text, instance_id::text,
            to_char(first_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            to_char(last_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), trim_scale(hourly_rate)::text,
            trim_scale(amount)::text, coalesce(plan_id::text, ''), run_id::text, charge_id::text) as line
    from (
        select cycle.organization_id, vps_instance_id as instance_id, cycle.id as charge_id, run_id, cycle.plan_id,
            hourly_rate, total_amount, billing_period_start as starts_at, billing_period_end as ends_at, late,
            month.starts_at as month_starts_at, month.ends_at as month_ends_at,
            ceil(extract(epoch from billing_period_end - billing_period_start) / 3600)::integer as hours,
            case when past_due_since is null then cycle.created_at
                 else coalesce((select as_of from billing_runs where billing_runs.id = cycle.run_id), cycle.updated_at)
                 end as billed_at
        from vps_billing_cycles cycle
        join counted_month month on billing_period_start < month.ends_at and billing_period_end > month.starts_at
            and cycle.run_id > after_run
        where cycle.organization_id between %(first_organization)s and %(last_organization)s
          and cycle.run_id <= %(last_run_id)s and status in ('billed', 'refunded')
          and not (total_amount = 0 and past_due_since is not null)
          and isfinite(billing_period_start) and isfinite(billing_period_end)
          and billing_period_start < billing_period_end
        offset 0
    ) charge, lateral (
        select greatest(0, ceil(extract(epoch from month_starts_at - starts_at) / 3600)::integer) as before,
            least(hours, ceil(extract(epoch from month_ends_at - starts_at) / 3600)::integer) as through
    ) place, lateral (
        select starts_at + before * interval '1 hour' as first_at,
            least(ends_at, starts_at + through * interval '1 hour') as last_at,
            case when through = hours then total_amount - before * hourly_rate else (through - before) * hourly_rate end as amount
    ) part
    where before < through and (not late or billed_at >= %(from)s and billed_at < %(until)s)
)

-- part: month_total
-- The totals of a month by organization: those that had hours in it, or something posted. The carry is what was billed and
-- adjusted until then less what was debited; a deleted organization took its ledger entries with it, and has none.
used as (
    select organization_id, count(*) filter (where not late) as charges,
        count(distinct instance_id) filter (where not late) as instances,
        coalesce(sum(seconds) filter (where not late), 0) as seconds, coalesce(sum(amount) filter (where not late), 0) as amount,
        count(*) filter (where late) as late_charges, coalesce(sum(seconds) filter (where late), 0) as late_seconds,
        coalesce(sum(amount) filter (where late), 0) as late_amount,
        encode(sha256(convert_to(string_agg(line, E'\n' order by instance_id, first_at, charge_id), 'UTF8')), 'hex') as sha256
    from month_line group by organization_id
),
movement as (
    select organization_id, billed_at as at, total_amount as billed, 0 as adjusted, 0 as debited, 0 as credited
    from (
        select cycle.organization_id, total_amount,
            case when past_due_since is null then cycle.created_at
                 else coalesce((select as_of from billing_runs where billing_runs.id = cycle.run_id), cycle.updated_at)
                 end as billed_at
        from vps_billing_cycles cycle
        where cycle.organization_id between %(first_organization)s and %(last_organization)s
          and run_id is not null and status in ('billed', 'refunded')
    ) charge
    union all
    select organization_id, created_at, 0, amount, 0, 0 from billing_adjustments
    where organization_id between %(first_organization)s and %(last_organization)s
    union all
    select organization_id, decided_at, 0, amount, 0, 0 from billing_decisions
    where decision = 'accept' and check_name = 'carries'
      and organization_id between %(first_organization)s and %(last_organization)s
    union all
    select organization_id, posted_at, 0, 0, greatest(-amount, 0), greatest(amount, 0) from entry_kind
    where kind in ('billing', 'correction', 'reversal', 'credit', 'audit', 'other billing')
      and organization_id between %(first_organization)s and %(last_organization)s
),
account as (
    select organization_id, coalesce(sum(billed) filter (where at >= %(from)s), 0) as billed,
        coalesce(sum(adjusted) filter (where at >= %(from)s), 0) as adjustments,
        coalesce(sum(debited) filter (where at >= %(from)s), 0) as debits,
        coalesce(sum(credited) filter (where at >= %(from)s), 0) as credits,
        coalesce(sum(billed + adjusted - debited + credited) filter (where at < %(from)s), 0) as carry_in,
        coalesce(sum(billed + adjusted - debited + credited), 0) as carry_out,
        count(*) filter (where at >= %(from)s) > 0 as has_moved
    from movement
    where at < %(until)s
    group by organization_id
),
month_total as (
    select organization_id, coalesce(charges, 0) as charges, coalesce(instances, 0) as instances,
        coalesce(seconds, 0) as seconds, coalesce(used.amount, 0) as amount, coalesce(late_charges, 0) as late_charges,
        coalesce(late_seconds, 0) as late_seconds, coalesce(late_amount, 0) as late_amount,
        case when exists_still then coalesce(billed, 0) end as billed,
        case when exists_still then coalesce(adjustments, 0) end as adjustments,
        case when exists_still then coalesce(debits, 0) end as debits,
        case when exists_still then coalesce(credits, 0) end as credits,
        case when exists_still then coalesce(carry_in, 0) end as carry_in,
        case when exists_still then coalesce(carry_out, 0) end as carry_out,
        coalesce(sha256, encode(sha256(''), 'hex')) as sha256
    from used full join account using (organization_id), lateral (
        select exists (select from organizations where organizations.id = organization_id) as exists_still
    ) organization
    where used.charges is not null or has_moved and exists_still
)

-- part: month_hash
-- The hash of a month: over the hash of the month before, its own name and last run, and one line for each organization.
month_hash as (
    select previous.sha256 as previous_sha256, encode(sha256(convert_to(concat_ws(E'\n', coalesce(previous.sha256, ''),
        %(month)s::text || ',' || %(last_run_id)s::text, (
            select string_agg(concat_ws(',', organization_id::text, charges::text, instances::text, trim_scale(seconds)::text,
                trim_scale(amount)::text, late_charges::text, trim_scale(late_seconds)::text, trim_scale(late_amount)::text,
                coalesce(trim_scale(billed)::text, '-'), coalesce(trim_scale(adjustments)::text, '-'),
                coalesce(trim_scale(debits)::text, '-'), coalesce(trim_scale(credits)::text, '-'),
                coalesce(trim_scale(carry_in)::text, '-'), coalesce(trim_scale(carry_out)::text, '-'), sha256),
                E'\n' order by organization_id)
            from billing_month_totals where month = %(month)s)), 'UTF8')), 'hex') as sha256
    from (values (true)) one
    left join (select sha256 from billing_months where month < %(month)s and state = 'closed' order by month desc limit 1) previous
        on true
)

-- name: begin_closing
-- Begin to close a month, once: what runs up to the present one billed for its hours is frozen. A run that is open is left out.
insert into billing_months (month, starts_at, ends_at, last_run_id, closed_by)
select %(month)s, %(from)s, %(until)s, coalesce((select min(id) - 1 from billing_runs where outcome is null),
    (select max(id) from billing_runs), 0), %(closed_by)s
on conflict (month) do nothing;

-- name: known_months
-- Months that are closed or being closed, oldest first.
select month, starts_at, ends_at, state, last_run_id, closed_by, closing_since, closed_at, previous_sha256, sha256
from billing_months order by month;

-- name: freeze_month_totals
-- Freeze the totals of a range of organizations; those that are frozen already stay.
insert into billing_month_totals (month, organization_id, charges, instances, seconds, amount, late_charges, late_seconds,
    late_amount, billed, adjustments, debits, credits, carry_in, carry_out, sha256)
with
-- include: month_line, entry_kind, month_total
select %(month)s, organization_id, charges, instances, seconds, amount, late_charges, late_seconds, late_amount, billed, adjustments,
    debits, credits, carry_in, carry_out, sha256
from month_total
on conflict (month, organization_id) do nothing;

-- name: end_closing
-- Close a month whose ranges are all frozen, with the hash that follows from the month before.
with
-- include: month_hash
update billing_months set state = 'closed', closed_at = billing_clock(), previous_sha256 = month_hash.previous_sha256,
    sha256 = month_hash.sha256
from month_hash
where month = %(month)s and state = 'closing';

-- name: hash_of_month
-- The hash of a month as it comes out now, with that of the month before.
with
-- include: month_hash
select previous_sha256, sha256 from month_hash;

-- name: preview_of_month
-- What closing a month would freeze, in a range of organizations.
with
-- include: month_line, entry_kind, month_total
select count(*) as organizations, coalesce(sum(charges), 0)::bigint as charges, coalesce(sum(seconds), 0) as seconds,
    coalesce(sum(amount), 0) as amount, coalesce(sum(late_amount), 0) as late_amount, coalesce(sum(debits), 0) as debits,
    coalesce(sum(credits), 0) as credits
from month_total;

-- name: frozen_sums_of_month
-- What is frozen of a month, over all organizations.
select count(*) as organizations, coalesce(sum(charges), 0)::bigint as charges, coalesce(sum(seconds), 0) as seconds,
    coalesce(sum(amount), 0) as amount, coalesce(sum(late_amount), 0) as late_amount, coalesce(sum(debits), 0) as debits,
    coalesce(sum(credits), 0) as credits
from billing_month_totals where month = %(month)s;

-- name: differences_from_frozen
-- Organizations of a range whose rows are not any more what was frozen. With an organization its ledger entries went, not its charges.
with
-- include: month_line, entry_kind, month_total
,
frozen as (
    select * from billing_month_totals
    where month = %(month)s and organization_id between %(first_organization)s and %(last_organization)s
)
select organization_id, case
    when frozen.month is null then 'it has hours or entries of the month, and nothing of them was frozen'
    when (coalesce(now.charges, 0), coalesce(now.seconds, 0), coalesce(now.amount, 0), coalesce(now.late_amount, 0))
            <> (frozen.charges, frozen.seconds, frozen.amount, frozen.late_amount)
        then format('%%s charges of %%s were frozen, and now there are %%s of %%s', frozen.charges + frozen.late_charges,
            trim_scale(frozen.amount + frozen.late_amount), coalesce(now.charges + now.late_charges, 0),
            coalesce(trim_scale(now.amount + now.late_amount), 0))
    when coalesce(now.sha256, encode(sha256(''), 'hex')) <> frozen.sha256
        then 'its charges come to what was frozen, and are not the same: one was changed and another one makes up for it'
    else format('debits of %%s and a carry of %%s were frozen, and now they are %%s and %%s', trim_scale(frozen.debits),
        trim_scale(frozen.carry_out), coalesce(trim_scale(now.debits)::text, 'none'),
        coalesce(trim_scale(now.carry_out)::text, 'none')) end as message
from month_total now full join frozen using (organization_id)
where frozen.month is null
   or (coalesce(now.charges, 0), coalesce(now.instances, 0), coalesce(now.seconds, 0), coalesce(now.amount, 0),
        coalesce(now.late_charges, 0), coalesce(now.late_seconds, 0), coalesce(now.late_amount, 0),
        coalesce(now.sha256, encode(sha256(''), 'hex')))
      is distinct from (frozen.charges, frozen.instances, frozen.seconds, frozen.amount, frozen.late_charges,
        frozen.late_seconds, frozen.late_amount, frozen.sha256)
   or exists (select from organizations where organizations.id = organization_id)
      and (now.billed, now.adjustments, now.debits, now.credits, now.carry_in, now.carry_out)
          is distinct from (frozen.billed, frozen.adjustments, frozen.debits, frozen.credits, frozen.carry_in, frozen.carry_out)
order by organization_id;

-- name: lines_of_month
-- The lines of the hours of a month, in a range of organizations: those that the hash of each organization is over.
with
-- include: month_line
select line from month_line order by organization_id, instance_id, first_at, charge_id;

-- name: frozen_hashes_of_month
-- The hash over the lines of each organization, as it was frozen.
select organization_id, sha256 from billing_month_totals where month = %(month)s and charges + late_charges > 0
order by organization_id;

-- name: frozen_totals_of_month
-- What is frozen of a month by organization, the largest amount first.
select organization_id, organizations.name as organization, charges, instances, seconds / 3600 as hours, amount, late_charges,
    late_amount, billed, adjustments, debits, credits, carry_in, carry_out, sha256
from billing_month_totals
left join organizations on organizations.id = organization_id
where month = %(month)s
order by amount + late_amount desc, organization_id;
