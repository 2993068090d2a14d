-- The ordinary hour: nothing but one hour is due of each instance of the batch. Then the update that moves the watermarks is
-- also the search for what is due, and a million instances cost 29 % less than by `charge`.
--
-- Which batches are ordinary is known from the plan and asked again under the locks. Where that is wrong, an instance with
-- more due, or with closed segments, is left as it stands for the next run: its closed hours and its open ones are charged
-- together, or held together. What both ways write is equal (tests/charging/test_equal_paths.py).

-- name: charge_single_hour
-- Move the watermarks of the instances with one hour due, write one charge for each row that moved, from that row, and post:
-- billed and past due as in `charge`. Returns the rows that billing had not written itself before, too: they are to be compared.
with
-- include: payers, given_rates
,
moved as (
    update vps_instances instance
    set last_billed_at = coalesce(last_billed_at, instance.created_at) + interval '1 hour',
        rated_until = coalesce(last_billed_at, instance.created_at) + interval '1 hour',
        sealed_by = case when instance.xmin = instance.sealed_by then pg_current_xact_id()::xid end
    from plan_rate, payer
    where instance.organization_id between %(first_organization)s and %(last_organization)s
      and instance.id between %(first_instance)s and %(last_instance)s
      and (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s))
      and coalesce(last_billed_at, instance.created_at) > %(as_of)s - interval '2 hours'
      and coalesce(last_billed_at, instance.created_at) <= %(as_of)s - interval '1 hour'
      and coalesce(last_billed_at, instance.created_at) >= coalesce(rated_until, last_billed_at, instance.created_at)
      and pending_segments is null
      and plan_rate.name = instance.plan_id and on_sale
      and valid_from <= coalesce(last_billed_at, instance.created_at)
      and coalesce(last_billed_at, instance.created_at) < valid_to
      and payer.organization_id = instance.organization_id and available is not null
    returning instance.organization_id, instance.id as instance_id, last_billed_at as ends_at, plan_rate.plan_id,
        case when billing_has_backups(instance) then hourly_rate_with_backups else hourly_rate end as hourly_rate, sealed_by,
        case when %(has_invoices)s then jsonb_build_object(
            'hours_charged', 1, 'base_hourly_rate', trim_scale(hourly_rate), 'backup_hourly_rate',
            case when billing_has_backups(instance) then trim_scale(hourly_rate_with_backups - hourly_rate) else 0 end,
            'backup_frequency', case when billing_has_backups(instance) and hourly_rate_with_backups > hourly_rate
                then coalesce(to_jsonb(instance) ->> 'backup_frequency', 'weekly') else 'none' end,
            'vps_label', label) end as metadata
),
wallet as materialized (
    select organization_id, total, hours, first_end - interval '1 hour' as first_start, last_end, one_instance,
        (total = 0 or total <= available) and past_due_since is null as covered,
        case when trunc(billing_carry + total, 2) > 0
             then billing_batch_uuid(%(batch_key)s, uuid_hash_extended(organization_id, 0)) end as entry_id
    from (
        select organization_id, sum(hourly_rate) as total, count(*) as hours, min(ends_at) as first_end, max(ends_at) as last_end,
            (array_agg(instance_id))[1] as one_instance
        from moved group by organization_id
    ) due
    join payer using (organization_id)
),
written as (
    insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate,
        total_amount, status, payment_transaction_id, run_id, plan_id, past_due_since, metadata, created_at, updated_at)
    select
        billing_batch_uuid(%(batch_key)s, uuid_hash_extended(instance_id, 0)),
        organization_id, instance_id, ends_at - interval '1 hour', ends_at, hourly_rate, hourly_rate,
        case when covered then 'billed' else 'failed' end,
        case when covered then entry_id end,
        %(run_id)s, plan_id,
        case when not covered then %(as_of)s end,
        metadata, %(as_of)s, %(as_of)s
    from moved join wallet using (organization_id)
    order by organization_id, ends_at, instance_id
),
bill as (
    select organization_id, not covered as is_past_due, case when covered then total else 0 end as amount,
        case when covered then hours else 0 end as instances, case when covered then hours else 0 end::numeric as hours,
        first_start, last_end, one_instance
    from wallet
),
-- include: posting
select true as is_complete, coalesce(bool_or(is_past_due), false) as short,
    (select array_agg(instance_id) from moved where sealed_by is null) as unsealed,
    coalesce(sum(instances), 0)::bigint as instances, coalesce(sum(hours), 0) as hours, coalesce(sum(amount), 0) as amount
from bill;
