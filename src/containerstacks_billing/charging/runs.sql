-- The life of a run's row, and the plan of its batches.

-- name: database_clock
-- Read the clock that money goes by. Asked once per run; everything else gets the answer as an argument.
select billing_clock();

-- name: close_abandoned_runs
-- Close the runs whose holder died: only the holder of the lease can have one open.
update billing_runs
set outcome = 'interrupted', finished_at = billing_clock(), error_message = 'its process ended before the run did'
where outcome is null;

-- name: sync_prices
-- Let announced prices take effect in vps_plans and record what the trigger missed.
select billing_sync_prices(%(as_of)s);

-- name: mark_owing_wallets
-- Mark the wallets that have past-due charges to pay and are not marked: another wallet owed, and was deleted since.
update wallets set past_due_since = %(as_of)s
where past_due_since is null
  and id in (
    select distinct on (organization_id) id from wallets
    where upper(currency) = %(currency)s
      and organization_id in (
        select organization_id from vps_billing_cycles where status = 'failed' and run_id is not null)
    order by organization_id, created_at, id);

-- name: open_run
-- Begin a run.
insert into billing_runs (trigger, holder, fencing_token, organization_id, as_of, host_clock, hours_per_month,
    started_at)
values (%(trigger)s, %(holder)s, %(fencing_token)s, %(organization_id)s, %(as_of)s, %(host_clock)s, %(hours_per_month)s,
    billing_clock())
returning id;

-- name: plan_batches
-- Cut the organizations with anything due, or anything wrong, into ranges of about the same number of instances. An
-- organization larger than a batch stands alone. A batch is ordinary when one hour is due of each instance and nothing else;
-- pending segments in the rows of instances count as those in billing_usage_segments: if a policy ever billed their status, for
-- they are judged by the one that they began under.
-- What is found here only says where to look: each batch derives what is due again, from locked rows.
with ever_billable as (
    select coalesce(array_agg(distinct status), '{}') as statuses, coalesce(bool_or(status = '*'), false) as every_status
    from billing_policies, unnest(billable_statuses) status
),
due as (
    select organization_id,
        count(*) - count(*) filter (where pending_segments is not null and not is_open) + coalesce(sum(closed), 0) as instances,
        bool_and((coalesce(last_billed_at, created_at) > %(as_of)s - interval '2 hours'
            and coalesce(last_billed_at, created_at) <= %(as_of)s - interval '1 hour'
            and coalesce(last_billed_at, created_at) >= coalesce(rated_until, '-infinity')
            and pending_segments is null) is true) as is_ordinary
    from (
        select *,
            coalesce(%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s), false)
                and (coalesce(last_billed_at, created_at) between %(as_of)s - interval '1 hour' + interval '1 microsecond'
                    and %(as_of)s + interval '1 hour'
                    and coalesce(last_billed_at, created_at) >= coalesce(rated_until, '-infinity')) is not true as is_open,
            case when pending_segments is not null
                 then billing_due_segments(pending_segments, %(as_of)s, (select every_status from ever_billable),
                     (select statuses from ever_billable)) end as closed
        from vps_instances
    ) instance
    where (is_open or closed is not null)
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
    union all
    select organization_id, count(*), false
    from billing_usage_segments
    where outcome is null and closed_at <= %(as_of)s
      and organization_id between %(first_organization)s and %(last_organization)s
    group by organization_id
    union all
    select organization_id, 0, true
    from wallets
    where past_due_since is not null and balance >= billing_carry
      and organization_id between %(first_organization)s and %(last_organization)s
),
organization as (
    select organization_id, sum(instances) as instances, bool_and(is_ordinary) as is_ordinary from due group by organization_id
),
placed as (
    select organization_id, instances, is_ordinary,
        div(sum(instances) over (order by organization_id) - instances, %(batch_size)s) as place,
        case when instances > %(batch_size)s then organization_id end as alone
    from organization
)
select (array_agg(organization_id order by organization_id))[1] as first_organization,
    (array_agg(organization_id order by organization_id desc))[1] as last_organization,
    sum(instances)::bigint as instances, bool_and(is_ordinary) as is_ordinary
from placed
group by place, alone
order by 1;

-- name: slice_organization
-- Cut the due instances of one large organization into slices.
select (array_agg(id order by id))[1] as first_instance
from (
    select id, div(row_number() over (order by id) - 1, %(batch_size)s) as slice
    from vps_instances
    where organization_id = %(first_organization)s
      and (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s))
      and coalesce(last_billed_at, created_at) <= %(as_of)s - interval '1 hour'
) placed
group by slice
order by 1;

-- name: payers_between
-- The organizations of a range that have a wallet, in order.
select distinct organization_id from wallets
where organization_id between %(first_organization)s and %(last_organization)s
order by 1;

-- name: covers_everything
-- Whether the wallet of one organization covers all that it has due and owes nothing: then its slices can be charged one by one.
with
-- include: payers, plan_rates, released, pieces
select coalesce(sum(amount) <= min(available), true) and not coalesce(bool_or(past_due_since is not null), false)
from piece join payer using (organization_id);

-- name: announce_plan
-- Note in the run's row how much there is to do.
update billing_runs set batches_planned = %(batches)s, instances_planned = %(instances)s where id = %(run_id)s;

-- name: nothing_left_out
-- Whether the run billed as many instances as were due or odd when it was planned, and nothing is quarantined or held from before: then
-- there is no need to look for those it left out. A run that collected past-due charges has billed others than those that were due.
select instances_billed = instances_planned and not exists (select from billing_quarantine)
    and not exists (select from vps_billing_cycles
                    where past_due_since is not null and run_id = %(run_id)s and status = 'billed')
from billing_runs where id = %(run_id)s;

-- name: batches_of_run
-- How many batches the server knows of; fewer than it has confirmed after a failover to a replica that lagged.
select batches from billing_runs where id = %(run_id)s;

-- name: close_run
-- End a run: its outcome, how many instances it leaves past due, quarantined and held, and what is past due. What a deleted organization owes
-- will not be paid, so it is not counted.
with
-- include: counted_anew
update billing_runs
set outcome = %(outcome)s, error_message = %(error_message)s, finished_at = billing_clock(),
    (past_due_instances, past_due_amount) = (
        select count(distinct vps_instance_id), coalesce(sum(total_amount), 0) from vps_billing_cycles charge
        where status = 'failed' and run_id is not null
          and organization_id between %(first_organization)s and %(last_organization)s
          and exists (select from organizations where organizations.id = charge.organization_id)),
    quarantined_instances = (
        select count(distinct instance_id) from billing_quarantine
        where reason <> 'held' and organization_id between %(first_organization)s and %(last_organization)s),
    held_instances = (
        select count(distinct instance_id) from billing_quarantine
        where reason = 'held' and organization_id between %(first_organization)s and %(last_organization)s)
where id = %(run_id)s
returning id, outcome, trigger, as_of, instances_billed, hours, amount, past_due_instances, quarantined_instances,
    held_instances, batches, extract(epoch from finished_at - started_at)::float8 as duration_seconds, error_message;

-- name: debited_by_run
-- What a run took off all wallets, in whole cents. The identifiers of its ledger entries begin with its number.
select coalesce(-sum(amount), 0) from payment_transactions
where id between %(first_id)s and %(last_id)s and provider_transaction_id = 'billing-run-' || %(run_id)s::text;

-- name: billable_instances
-- How many instances there are to bill, of one organization or of all; it stops counting where the caller need not know more.
select count(*) from (
    select from vps_instances
    where (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s))
      and organization_id between %(first_organization)s and %(last_organization)s
    limit %(most)s
) billable;

-- name: organization_exists
-- Whether an organization is there.
select exists (select from organizations where id = %(organization)s);

-- name: host_makes_invoices
-- Whether the host makes invoices of the metadata of charges: the successor does, which has web hosting and egress.
select to_regclass('hosting_wallets') is not null or to_regclass('organization_egress_credits') is not null;
