-- What a run left out, and why, in words that the person who has to repair it understands.

-- part: left_out
-- The billable instances that still have a full hour due after the run, or whose dates are unusable, and the closed
-- segments that could not be charged. Nothing here is trusted by the charging statements: they leave such rows out by
-- themselves, and this finds what they left. A watermark is ahead of its time when it lies more than an hour after the
-- latest instant that was ever billed: a clock that goes back makes no watermark wrong.
left_out as (
    select instance.organization_id, instance.id as instance_id, 0::bigint as segment_id, label, plan_id as plan_name,
        billing_has_backups(instance) as backups, coalesce(last_billed_at, created_at) as starts_at, rated_until,
        null::timestamptz as until, null::text as outcome, last_billed_at is null as is_new
    from vps_instances instance
    where (%(every_status)s or billing_is_billable(status, lasting_status, %(billable_statuses)s))
      and (coalesce(last_billed_at, created_at) between %(as_of)s - interval '1 hour' + interval '1 microsecond'
            and (select latest from latest_instant) + interval '1 hour'
           and coalesce(last_billed_at, created_at) >= coalesce(rated_until, '-infinity')) is not true
      and organization_id between %(first_organization)s and %(last_organization)s
    union all
    select organization_id, instance_id, id, label, plan_id, backups, started_at, started_at, charge_until, outcome, false
    from billing_usage_segments
    where (outcome is null and closed_at <= %(as_of)s or outcome = 'damaged')
      and organization_id between %(first_organization)s and %(last_organization)s
      and exists (select from organizations where id = organization_id)
)

-- name: write_quarantine
-- Write the quarantine anew for these organizations: who was left out, the first reason that applies, and since when.
with
-- include: payers, plan_rates, released
,
latest_instant as (
    -- The first hour of an instance that was created during the run may be paid ahead.
    select greatest(max(as_of) filter (where outcome = 'completed'), %(as_of)s, billing_clock()) as latest from billing_runs
),
-- include: left_out
,
plan_in_use as (
    -- Asked once per name and not once per instance: after an outage the whole fleet is in here.
    select plan_name,
        (select count(*) from vps_plans where active and provider_plan_id = plan_name) as plans_of_that_name,
        (select count(*) from vps_plans where not active and provider_plan_id = plan_name) as plans_not_active,
        exists (select from plan_price_versions where plan_id::text = plan_name) as plan_known,
        exists (select from vps_plans where id::text = plan_name) as plan_there,
        exists (select from plan_rate where name = plan_name) as plan_priced,
        exists (select from plan_rate where name = plan_name and on_sale) as plan_on_sale
    from (select coalesce(plan_name, '') as plan_name from left_out group by 1) name
),
examined as (
    select left_out.*, wallet_id, balance, released_until, plans_of_that_name, plans_not_active, plan_known, plan_there,
        plan_on_sale or plan_priced and segment_id > 0 as plan_usable,
        exists (select from wallets where wallets.organization_id = left_out.organization_id) as has_other_wallet,
        isfinite(starts_at) as dated,
        case when not isfinite(starts_at) or not isfinite(coalesce(until, starts_at)) then null
             when until is not null then extract(epoch from until - starts_at) / 3600
             when starts_at < %(as_of)s then floor(extract(epoch from %(as_of)s - starts_at) / 3600)
             else 0 end as due_hours
    from left_out
    join plan_in_use on plan_in_use.plan_name = coalesce(left_out.plan_name, '')
    left join payer using (organization_id)
    left join released using (organization_id, instance_id)
),
answerable as (
    select *, sum(due_hours - case
            when approved_until is null or approved_until <= starts_at then 0
            when until is not null then extract(epoch from least(approved_until, until) - starts_at) / 3600
            else least(due_hours, floor(extract(epoch from approved_until - starts_at) / 3600))
        end) over (partition by organization_id, instance_id) as hours_to_answer_for
    from (select *, case when dated then released_until end as approved_until from examined) one
),
told as (
    select *, case
        when starts_at is null then 'undated'
        when not dated then 'infinite watermark'
        when until is null and starts_at > (select latest from latest_instant) + interval '1 hour' then 'future watermark'
        when starts_at < rated_until or outcome = 'damaged' then 'damaged watermark'
        when wallet_id is null then 'no wallet'
        when not coalesce(balance between -100000000000 and 100000000000, false) then 'unusable balance'
        when not plan_there and plans_of_that_name > 1 and not plan_usable then 'ambiguous plan'
        when not plan_usable and (plan_there or plans_of_that_name > 0) then 'unusable price'
        when not plan_usable then 'no plan'
        when hours_to_answer_for > %(max_catch_up_hours)s then 'held'
        end as reason
    from answerable
),
found as (
    select *, case reason
        when 'undated' then 'it has neither a creation time nor a watermark: set vps_instances.created_at'
        when 'infinite watermark' then 'its watermark is infinite: set ' || repaired_date
        when 'future watermark' then 'its watermark lies in the future (' || starts_at::text || '): set ' || repaired_date
        when 'damaged watermark' then 'its watermark was moved back behind what was charged already: set ' || repaired_date
        when 'no wallet' then 'its organization has no wallet in ' || %(currency)s
            || case when has_other_wallet then ', only in another currency' else '' end || ': create one'
        when 'unusable balance' then 'the balance of its wallet is no usable number: correct wallets.balance'
        when 'ambiguous plan' then plans_of_that_name::text
            || ' active plans with different prices have the provider_plan_id ' || shown_name || ': give it the id of one'
        when 'unusable price' then 'a price of its plan is missing, negative or no number: correct vps_plans'
        when 'no plan' then 'there is no plan ' || shown_name || case
            when plans_not_active > 0 then ' that is active: activate it, or give the instance another plan_id'
            when plan_known then ' any more: it was deleted, give the instance another plan_id'
            else ': correct its plan_id or create the plan' end
        when 'held' then trim_scale(round(hours_to_answer_for, 2))::text || ' hours are due, more than MAX_CATCH_UP_HOURS ('
            || %(max_catch_up_hours)s::text || '): decide with containerstacks-billing release'
        end as detail
    from told,
        lateral (
            select case when coalesce(btrim(plan_name), '') = '' then 'without a name'
                        else quote_literal(left(plan_name, 100)) end as shown_name,
                -- Where rating begins is not known, so a person has to decide it.
                case when isfinite(rated_until) then 'vps_instances.last_billed_at to ' || rated_until::text
                     when is_new then 'vps_instances.created_at to when it was created'
                     else 'vps_instances.last_billed_at to when it was created' end as repaired_date
        ) named
    where reason is not null
),
gone as (
    delete from billing_quarantine old
    where organization_id between %(first_organization)s and %(last_organization)s
      and not exists (select from found where found.organization_id = old.organization_id
                      and found.instance_id = old.instance_id and found.segment_id = old.segment_id)
)
insert into billing_quarantine as kept (organization_id, instance_id, segment_id, label, reason, detail, due_hours,
    first_seen_at, last_seen_at, run_id)
select organization_id, instance_id, segment_id, left(label, 255), reason, detail, due_hours, %(as_of)s, %(as_of)s, %(run_id)s
from found
on conflict (organization_id, instance_id, segment_id) do update
set label = excluded.label, reason = excluded.reason, detail = excluded.detail, due_hours = excluded.due_hours,
    last_seen_at = excluded.last_seen_at, run_id = excluded.run_id,
    first_seen_at = case when kept.reason = excluded.reason then kept.first_seen_at else excluded.first_seen_at end;

-- name: quarantined_instances
-- What is quarantined or held at present, the longest first.
select reason, detail, first_seen_at, due_hours, quarantine.organization_id, organizations.name as organization, instance_id,
    segment_id, label
from billing_quarantine quarantine
left join organizations on organizations.id = quarantine.organization_id
order by first_seen_at, organization_id, instance_id, segment_id
limit %(limit)s;

-- name: adopt_repaired_plans
-- Give closed segments whose plan_id names no plan the one that followed it: that of the instance, or of its next segment.
-- A name of plans that have no one price at the moment is the name of a plan all the same: such hours wait until there is one, or
-- until the instance is given the id of one of these plans.
-- Correcting the plan_id of an instance closes the segment that has the wrong one, and nothing else could ever
-- give those hours a price. A plan that exists and has no usable price is repaired in its price instead.
with
-- include: plan_rates
,
nameless as (
    select organization_id, id, instance_id, started_at, segment.plan_id as name
    from billing_usage_segments segment
    where outcome is null
      and organization_id between %(first_organization)s and %(last_organization)s
      and not exists (select from plan_name where plan_name.name = segment.plan_id)
),
successor as (
    select nameless.organization_id, nameless.id, name, coalesce(
        (select plan_id from billing_usage_segments later
         where later.organization_id = nameless.organization_id and later.instance_id = nameless.instance_id
           and later.started_at > nameless.started_at and later.plan_id in (select name from plan_name)
         order by later.started_at limit 1),
        (select plan_id from vps_instances instance
         where instance.id = nameless.instance_id and instance.plan_id in (select name from plan_name))) as plan_id
    from nameless
)
update billing_usage_segments segment
set plan_id = successor.plan_id
from successor
where segment.organization_id = successor.organization_id and segment.id = successor.id and successor.plan_id is not null
  and (not exists (select from vps_plans where provider_plan_id = successor.name)
       or exists (select from vps_plans where provider_plan_id = successor.name and vps_plans.id::text = successor.plan_id));
