-- Which hours of which charges an adjustment is about, at which rate they stand now, and at which they should.
--
-- A statement is put together of three parts: the hours chosen, the rate at which each stands (`current_hours`), and `change`,
-- which says the new rate and answers what becomes of each: 'now', 'already', or 'changed since'. What follows from a change
-- (differences, what a wallet bears, entries) stands in posting.sql and is the same for price corrections.
--
-- Hours are counted from the start of a charge, as they were when it was rated; only the last hour of a charge can be a
-- fraction. So every piece begins and ends on that grid, and the difference of two rounded amounts is exact.

-- part: chosen_charge
-- Charges of ours in the scope, with the hours of each that are meant: those that begin in the span; or, pro rata, all that
-- overlap it, where the first and the last stand by themselves with how much of them lies inside. A charge that was past due
-- belongs to the run in which it fell due, whichever run collected it.
chosen_charge as (
    select charge.id as charge_id, charge.organization_id, vps_instance_id as instance_id, charge.plan_id, charge.segment_id,
        charge.run_id, charge.status, charge.metadata, billing_period_start as starts_at, billing_period_end as ends_at,
        hourly_rate, total_amount, piece_from as hours_from, piece_until as hours_until,
        extract(epoch from piece_until - piece_from) as length,
        extract(epoch from case when %(pro_rata)s then least(piece_until, %(until)s) - greatest(piece_from, %(from)s)
                                else piece_until - piece_from end) as covered
    from vps_billing_cycles charge, lateral (
        select greatest(0, floor(extract(epoch from %(from)s - billing_period_start) / 3600))::integer as touched_from,
            greatest(0, ceil(extract(epoch from %(from)s - billing_period_start) / 3600))::integer as first_begun,
            floor(extract(epoch from %(until)s - billing_period_start) / 3600)::integer as whole_until,
            ceil(extract(epoch from %(until)s - billing_period_start) / 3600)::integer as until_begun
    ) counted, lateral (
        select least(billing_period_end, billing_period_start + low * interval '1 hour') as piece_from,
            least(billing_period_end, billing_period_start + high * interval '1 hour') as piece_until
        from (values
            (touched_from, case when %(pro_rata)s then least(first_begun, until_begun) else touched_from end),
            (first_begun, case when %(pro_rata)s then whole_until else until_begun end),
            (greatest(first_begun, whole_until), case when %(pro_rata)s then until_begun else 0 end)) bound (low, high)
        where low < high
    ) piece
    where charge.organization_id between %(first_organization)s and %(last_organization)s
      and charge.run_id is not null and charge.status in ('billed', 'failed')
      and billing_period_start >= %(starts_from)s and billing_period_start < %(starts_until)s
      and billing_period_start < %(until)s and billing_period_end > %(from)s and piece_from < piece_until
      and (%(run)s::bigint is null
           or case when past_due_since is null then charge.id between %(first_id)s and %(last_id)s
                   else past_due_since = %(run_as_of)s end)
      and (%(plan_id)s::uuid is null or charge.plan_id = %(plan_id)s)
      and (%(instances)s::uuid[] is null or vps_instance_id = any (%(instances)s))
      and (%(created_until)s::timestamptz is null or created_at <= %(created_until)s)
)

-- part: current_hours
-- The same hours, cut where earlier adjustments begin or end, with the rate that holds now: that of the latest adjustment of them,
-- else that of the charge; and the order that set it, if one did.
current_hours as (
    select organization_id, charge_id, instance_id, plan_id, segment_id, run_id, status, metadata, starts_at, ends_at,
        hourly_rate, hours_from, hours_until, length, covered, hourly_rate as old_rate, null::bigint as set_by
    from chosen_charge
    where not exists (
        select from billing_adjustments adjustment
        where adjustment.organization_id = chosen_charge.organization_id and adjustment.charge_id = chosen_charge.charge_id)
    union all
    select organization_id, charge_id, instance_id, plan_id, segment_id, run_id, status, metadata, starts_at, ends_at,
        hourly_rate, piece.hours_from, piece.hours_until, length, covered, coalesce(latest.new_rate, hourly_rate), latest.order_id
    from chosen_charge, lateral (
        select at as hours_from, lead(at) over (order by at) as hours_until
        from (
            select chosen_charge.hours_from as at
            union
            select chosen_charge.hours_until
            union
            select bound
            from billing_adjustments adjustment, lateral (values (adjustment.hours_from), (adjustment.hours_until)) edge (bound)
            where adjustment.organization_id = chosen_charge.organization_id and adjustment.charge_id = chosen_charge.charge_id
              and bound > chosen_charge.hours_from and bound < chosen_charge.hours_until
        ) edges
    ) piece
    left join lateral (
        select new_rate, order_id from billing_adjustments adjustment
        where adjustment.organization_id = chosen_charge.organization_id and adjustment.charge_id = chosen_charge.charge_id
          and adjustment.hours_from <= piece.hours_from and adjustment.hours_until >= piece.hours_until
        order by adjustment.id desc limit 1
    ) latest on true
    where piece.hours_until is not null
      and exists (
        select from billing_adjustments adjustment
        where adjustment.organization_id = chosen_charge.organization_id and adjustment.charge_id = chosen_charge.charge_id)
)

-- part: ordered_change
-- What an order makes of them. Waived hours cost nothing; rated again, they cost what the recorded price of their plan at their
-- start comes to now; credited, they cost less by a factor, rounded in favour of the charge and never twice; what is owed goes down to
-- nothing at most. A cap bounds the
-- credit of an instance by a share of what its charges of a span stand at.
paid_rate as (
    -- Every rate that a price of the plan can have led to, to know whether a charge was rated with backups.
    select distinct plan_id, round(monthly / hours_per_month, 8) as rate, round(monthly / hours_per_month + backup, 8) as rate_with_backups
    from (
        select plan_id, base_price + coalesce(markup_price, 0) as monthly,
            coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0) as backup
        from plan_price_versions
        union
        select plan_id, coalesce(old_base_price, 0) + coalesce(old_markup_price, 0), backup_hourly from billing_price_corrections
    ) price, (select distinct hours_per_month from billing_runs) divisor
    where %(mode)s = 'rerate' and monthly >= 0 and monthly < 'NaN'
),
rated_again as (
    select current_hours.charge_id, current_hours.hours_from as piece_of,
        greatest(current_hours.hours_from, starts_at + first_hour * interval '1 hour') as hours_from,
        least(current_hours.hours_until, starts_at + last_hour * interval '1 hour') as hours_until,
        round((base_price + coalesce(markup_price, 0)) / %(hours_per_month)s
            + case when with_backups then coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0) else 0 end, 8) as rate
    from current_hours
    left join billing_usage_segments segment on segment.id = current_hours.segment_id
    left join vps_instances instance on instance.id = current_hours.instance_id
    join plan_price_versions version on version.plan_id = current_hours.plan_id
        and valid_from < current_hours.hours_until and valid_to > starts_at and billing_usable_price(version),
    lateral (
        select ceil(extract(epoch from greatest(valid_from, current_hours.hours_from) - starts_at) / 3600)::integer as first_hour,
            ceil(extract(epoch from least(valid_to, current_hours.hours_until) - starts_at) / 3600)::integer as last_hour,
            coalesce(segment.backups,
                case when exists (select from paid_rate where paid_rate.plan_id = current_hours.plan_id and rate = hourly_rate) then false
                     when exists (select from paid_rate
                                  where paid_rate.plan_id = current_hours.plan_id and rate_with_backups = hourly_rate) then true
                     else billing_has_backups(instance) end, false) as with_backups
    ) hours
    where %(mode)s = 'rerate' and first_hour < last_hour
),
wanted as (
    select current_hours.*, case %(mode)s when 'waive' then 0 when 'rerate' then old_rate
            else greatest(case when status = 'failed' then 0 end,
                round(ceil(old_rate * (length - covered * %(factor)s) * 100000000 / length) / 100000000, 8)) end as new_rate,
        old_rate <= 0 or %(mode)s = 'credit' and (
            exists (select from billing_adjustment_orders given where given.id = set_by and given.mode = 'credit')
            or exists (select from billing_adjustment_orders given
                       where given.id = (metadata #>> '{billing_order,id}')::bigint and given.mode = 'credit')) as is_done
    from current_hours where %(mode)s <> 'rerate'
    union all
    select organization_id, charge_id, instance_id, plan_id, segment_id, run_id, status, metadata, starts_at, ends_at, hourly_rate,
        rated_again.hours_from, rated_again.hours_until, length, covered, old_rate, set_by, rate, old_rate = rate
    from current_hours
    join rated_again using (charge_id)
    where piece_of = current_hours.hours_from
),
paid_in_span as (
    -- By instance: what its charges of the span of the cap stand at, less what credits took off them.
    select organization_id, vps_instance_id as instance_id, sum(total_amount + coalesce((
            select sum(adjustment.amount) from billing_adjustments adjustment
            where adjustment.organization_id = charge.organization_id and adjustment.charge_id = charge.id), 0)) as stands_at
    from vps_billing_cycles charge
    where %(cap)s::numeric is not null and charge.run_id is not null and charge.status = 'billed'
      and organization_id between %(first_organization)s and %(last_organization)s
      and billing_period_start >= %(cap_from)s and billing_period_start < %(until)s
    group by organization_id, vps_instance_id
),
capped as (
    select organization_id, instance_id,
        greatest(0, least(1, (%(cap)s * stands_at - taken) / nullif(wished, 0))) as scale
    from (
        select organization_id, instance_id, sum((old_rate - new_rate)
                * extract(epoch from hours_until - hours_from) / 3600) as wished
        from wanted where %(cap)s::numeric is not null and not is_done
        group by organization_id, instance_id
    ) wish
    join paid_in_span using (organization_id, instance_id), lateral (
        select coalesce(-sum(amount), 0) * (1 - %(cap)s) as taken
        from billing_adjustments adjustment
        where adjustment.organization_id = wish.organization_id and adjustment.instance_id = wish.instance_id
          and adjustment.order_id = %(order_id)s
    ) before
),
change as not materialized (
    select organization_id, charge_id, instance_id, run_id, status, metadata, starts_at, ends_at, hourly_rate, hours_from,
        hours_until, old_rate, case when scale is null then new_rate
            else round(ceil((old_rate - (old_rate - new_rate) * scale) * 100000000) / 100000000, 8) end as new_rate,
        case when is_done then 'already' else 'now' end as answer
    from wanted left join capped using (organization_id, instance_id)
)

-- part: undone_hours
-- The hours that an order changed, with the rate that it set and the one from before: those of its adjustments; and past-due
-- charges that it rated anew in place, which remember both (metadata), also when they were paid since.
undone_target as (
    select organization_id, charge_id, hours_from, hours_until, new_rate as rate, old_rate as rate_before, false as in_place
    from billing_adjustments
    where order_id = %(undoes)s and charge_id is not null
      and organization_id between %(first_organization)s and %(last_organization)s
    union all
    select organization_id, id, billing_period_start, billing_period_end, (metadata #>> '{billing_order,rate}')::numeric,
        (metadata #>> '{billing_order,before}')::numeric, true
    from vps_billing_cycles
    where organization_id between %(first_organization)s and %(last_organization)s
      and run_id is not null and past_due_since is not null
      and billing_period_start >= %(starts_from)s and billing_period_start < %(starts_until)s
      and (metadata #>> '{billing_order,id}')::bigint = %(undoes)s
),
chosen_charge as (
    select charge.id as charge_id, charge.organization_id, vps_instance_id as instance_id, charge.plan_id, charge.segment_id,
        charge.run_id, case when in_place and charge.status = 'refunded' then 'failed' else charge.status end as status,
        charge.metadata, billing_period_start as starts_at, billing_period_end as ends_at, hourly_rate, total_amount,
        target.hours_from, target.hours_until, 1 as length, 1 as covered
    from undone_target target
    join vps_billing_cycles charge on charge.organization_id = target.organization_id and charge.id = target.charge_id
    where charge.organization_id between %(first_organization)s and %(last_organization)s
)

-- part: undone_change
-- What undoing an order makes of them: the rate from before it, where its own holds still.
change as not materialized (
    select hour.organization_id, hour.charge_id, instance_id, run_id, status, metadata, starts_at, ends_at, hourly_rate,
        hour.hours_from, hour.hours_until, old_rate, rate_before as new_rate,
        case when set_by = %(order_id)s then 'already'
             when old_rate <> rate or status not in ('billed', 'failed') then 'changed since'
             else 'now' end as answer
    from current_hours hour
    join undone_target target on target.organization_id = hour.organization_id and target.charge_id = hour.charge_id
        and target.hours_from <= hour.hours_from and target.hours_until >= hour.hours_until
)
