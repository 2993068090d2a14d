-- Admission: whether an organization may create an instance, for the host's own transaction. It reads, locks nothing and never raises
-- for what it finds; a host that creates under FOR UPDATE of the wallet has an answer that still holds at its commit.

-- locks: Creates billing_may_create(): no table is locked.

-- What an instance of a plan costs per hour at an instant, null where it cannot be charged. A name is resolved as a run resolves it:
-- the plan with this id, else the active plans with this provider_plan_id, if they cost the same.
create or replace function billing_rate_of(plan_name text, backups boolean, hours_per_month integer, at timestamptz) returns numeric
    language sql stable security definer set search_path = public, pg_temp
as $$
    with plan as (
        select plan_id from plan_price_versions where plan_id::text = lower(plan_name)
        union
        select id from vps_plans
        where provider_plan_id = plan_name and active
          and not exists (select from plan_price_versions where plan_id::text = lower(plan_name))
    ),
    rate as (
        select plan_id, round((base_price + coalesce(markup_price, 0)) / hours_per_month
            + case when backups then coalesce(backup_price_hourly, 0) + coalesce(backup_upcharge_hourly, 0) else 0 end, 8) as hourly_rate,
            billing_usable_price(version) as is_usable
        from plan_price_versions version
        where plan_id in (select plan_id from plan) and valid_from <= at and at < valid_to
    )
    select case when bool_and(is_usable) and count(distinct hourly_rate) = 1 then min(hourly_rate) end from rate
$$;
revoke execute on function billing_rate_of(text, boolean, integer, timestamptz) from public;

-- May this organization create an instance of this plan, and keep it for so many hours beside what it runs already?
--
--     select billing_may_create('…', 'g6-nanode-1', 24);
--     {"allowed": true, "reason": "…", "hours": 158.42, "minimumBalance": "5.00", "shortBy": "0.00", "currency": "USD"}
--
-- `hours`: how long the balance lasts with that instance, null without an end; `minimumBalance`: what has to be available, which is
-- the larger of the minimum that is set and the cost of these hours; `reason`: a sentence that may be shown to the customer.
-- Available is the balance, less what is carried and what the running instances have used since they were last charged.
create or replace function billing_may_create(organization uuid, plan text, hours numeric default 24, billing_currency text default 'USD')
    returns jsonb
    language plpgsql stable security definer set search_path = public, pg_temp
as $$
declare
    now             constant timestamptz := billing_clock();
    wanted          constant numeric := least(greatest(coalesce(hours, 24), 0), 876000);
    hours_per_month constant integer := coalesce((select r.hours_per_month from billing_runs r order by id desc limit 1), 730);
    policy          billing_policies;
    payer           wallets;
    rate            numeric := billing_rate_of(plan, false, hours_per_month, now);
    burn            numeric;
    used            numeric;
    past_due        numeric;
    available       numeric;
    minimum         numeric;
    needed          numeric;
    lasts           numeric;
    problem         text;
begin
    select * into payer from wallets w
    where w.organization_id = organization and upper(w.currency) = upper(billing_currency)
    order by w.created_at, w.id limit 1;
    select * into policy from billing_policies p where p.valid_from <= now and now < p.valid_to;

    select coalesce(sum(r.hourly_rate), 0), coalesce(sum(r.hourly_rate * greatest(extract(epoch from now - r.since), 0) / 3600), 0)
      into burn, used
      from (
        select billing_rate_of(i.plan_id::text, billing_has_backups(i), hours_per_month, now) as hourly_rate,
            coalesce(i.last_billed_at, i.created_at) as since
        from vps_instances i
        where i.organization_id = organization and billing_metered_status(i.status::text, policy)
      ) r;
    select coalesce(sum(c.total_amount), 0) into past_due from vps_billing_cycles c
    where c.organization_id = organization and c.status = 'failed' and c.run_id is not null;

    if payer.id is null then
        problem := format('There is no wallet in %s to pay from.', upper(billing_currency));
    elsif payer.balance is null or payer.balance not between -100000000000 and 100000000000 then
        problem := 'The balance of the wallet is no usable number.';
    elsif rate is null then
        problem := 'This plan cannot be ordered: there is no price in force for it.';
    end if;
    if problem is not null then
        return jsonb_build_object('allowed', false, 'reason', problem, 'hours', null, 'minimumBalance', null, 'shortBy', null,
            'currency', upper(billing_currency));
    end if;

    available := payer.balance - payer.billing_carry - used;
    minimum := coalesce(
        (select m.amount from billing_minimum_balances m
          where m.plan_id = (select v.id from vps_plans v where v.id::text = lower(plan)
                             or v.provider_plan_id = plan and v.active order by v.id::text = lower(plan) desc, v.created_at, v.id limit 1)),
        (select m.amount from billing_minimum_balances m where m.plan_id is null),
        0);
    burn := burn + rate;
    needed := greatest(minimum, ceil(wanted * burn * 100) / 100);
    lasts := case when burn > 0 then trunc(greatest(available, 0) / burn, 2) end;
    problem := case
        when past_due >= 0.01 then
            format('%s %s is past due and has to be paid first.', billing_money_text(ceil(past_due * 100) / 100), upper(billing_currency))
        when available < needed then
            format('%s %s is needed and %s is available: please add at least %s.', billing_money_text(needed), upper(billing_currency),
                billing_money_text(greatest(trunc(available, 2), 0)), billing_money_text(ceil((needed - available) * 100) / 100))
    end;
    return jsonb_build_object(
        'allowed', problem is null,
        'reason', coalesce(problem, case when lasts is null then 'This costs nothing per hour.'
            else format('The balance lasts %s hours with this server.', trunc(lasts)) end),
        'hours', lasts,
        'minimumBalance', billing_money_text(needed),
        'shortBy', billing_money_text(greatest(ceil((needed - available + case when past_due >= 0.01 then past_due else 0 end) * 100) / 100, 0)),
        'currency', upper(billing_currency));
end
$$;
comment on function billing_may_create(uuid, text, numeric, text) is
    'Whether an organization may create an instance of a plan: {allowed, reason, hours, minimumBalance, shortBy, currency}';
