-- The journal of the oracle: what the host did, written down in the transaction in which it did it.
--
-- A crash, a lost answer or a failover takes an entry away together with the change that it speaks of, so the journal
-- never knows more or less than the tables. It belongs into a throw-away database and stands there before the crowd comes.
-- It reads the host's tables and the charges, and of the product only billing_clock(): metering and journal agree about an
-- instant to the microsecond when that clock stands still inside a transaction, as the one of clock.sql does.
--
-- `number` orders what happened, across the tables. Where two transactions changed the same row the later one waited for the
-- row, and so has the higher number.

create schema oracle;

create sequence oracle.numbers;

create table oracle.terms (
    statuses        text[]  not null,
    partial_hour    text    not null,
    hours_per_month integer not null,
    currency        text    not null
);

-- What an instance was from an instant on. `charged_until` is the end of its last charge at that moment: where the clock was
-- set back, an hour that is paid already stays paid.
create table oracle.instances (
    number          bigint      primary key default nextval('oracle.numbers'),
    at              timestamptz not null,
    instance_id     uuid        not null,
    exists_now      boolean     not null,
    organization_id uuid        not null,
    plan            text        not null,
    status          text,
    starts_at       timestamptz,
    charged_until   timestamptz
);

-- What a plan cost per month from an instant on. Until `seen_by` a run may have read the price of before, for the change was
-- not committed yet; a crowd that cares enters here when it knew of its commit.
create table oracle.prices (
    number  bigint      primary key default nextval('oracle.numbers'),
    at      timestamptz not null,
    seen_by timestamptz not null,
    plan_id uuid        not null,
    name    text        not null,
    monthly numeric     not null
);

-- Money that came and went beside billing: what a wallet was opened with, and every completed entry of the host.
create table oracle.money (
    number          bigint  primary key default nextval('oracle.numbers'),
    organization_id uuid    not null,
    wallet_id       uuid,
    amount          numeric not null
);

-- Where the clock was set by hand: what it said before and after.
create table oracle.steps (
    number bigint      primary key default nextval('oracle.numbers'),
    before timestamptz not null,
    after  timestamptz not null
);

create function oracle.note_instance() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    host    vps_instances;
    charged timestamptz;
begin
    if tg_op = 'INSERT' then
        insert into oracle.instances (at, instance_id, exists_now, organization_id, plan, status, starts_at)
        values (billing_clock(), new.id, true, new.organization_id, new.plan_id, new.status,
            coalesce(new.last_billed_at, new.created_at));
        return null;
    end if;
    select billing_period_end into charged from vps_billing_cycles
    where organization_id = old.organization_id and vps_instance_id = old.id and run_id is not null
    order by billing_period_start desc limit 1;
    host := case when tg_op = 'DELETE' then old else new end;
    insert into oracle.instances (at, instance_id, exists_now, organization_id, plan, status, charged_until)
    values (billing_clock(), host.id, tg_op = 'UPDATE', host.organization_id, host.plan_id, host.status, charged);
    return null;
end $$;

create trigger oracle_notes_birth_and_death after insert or delete on vps_instances
    for each row execute function oracle.note_instance();
create trigger oracle_notes_change after update on vps_instances
    for each row when ((old.organization_id, old.plan_id, old.status) is distinct from
        (new.organization_id, new.plan_id, new.status))
    execute function oracle.note_instance();

create function oracle.note_price() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into oracle.prices (at, seen_by, plan_id, name, monthly)
    values (billing_clock(), billing_clock(), new.id, new.provider_plan_id, new.base_price + coalesce(new.markup_price, 0));
    return null;
end $$;

create trigger oracle_notes_price after insert or update on vps_plans
    for each row execute function oracle.note_price();

create function oracle.note_wallet() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into oracle.money (organization_id, wallet_id, amount) values (new.organization_id, new.id, coalesce(new.balance, 0));
    return null;
end $$;

create trigger oracle_notes_wallet after insert on wallets
    for each row execute function oracle.note_wallet();

create function oracle.note_entry() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    before numeric := 0;
begin
    if tg_op = 'UPDATE' and old.status = 'completed' then
        before := old.amount;
    end if;
    insert into oracle.money (organization_id, amount)
    select new.organization_id, case when new.status = 'completed' then new.amount else 0 end - before;
    return null;
end $$;

create trigger oracle_notes_entry after insert or update on payment_transactions
    for each row when (coalesce(new.provider_transaction_id, '') not like 'billing-%')
    execute function oracle.note_entry();

-- What is there already when the journal begins.
insert into oracle.instances (at, instance_id, exists_now, organization_id, plan, status, starts_at)
select billing_clock(), id, true, organization_id, plan_id, status, coalesce(last_billed_at, created_at) from vps_instances;

insert into oracle.prices (at, seen_by, plan_id, name, monthly)
select billing_clock(), billing_clock(), id, provider_plan_id, base_price + coalesce(markup_price, 0) from vps_plans;

insert into oracle.money (organization_id, wallet_id, amount)
select organization_id, id, coalesce(balance, 0) from wallets;
