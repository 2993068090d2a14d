-- no-transaction
-- 013_adopt_containerstacks.sql — make a ContainerStacks schema fit for exact, exactly-once billing, in place.
--
-- On an empty database most of this finds nothing to do. On an existing one it adds what is missing and changes only
-- what is wrong. No row, column or table of the host is dropped or renamed, and every statement the host application
-- makes goes on working. What is changed, and why:
--
--   * `hourly_rate` and `total_amount` become unconstrained `numeric`. They hold numeric(18,8) in meaning, but a change
--     to another scale rewrites the table under an exclusive lock, and a change to plain `numeric` does not touch a row.
--     What the type no longer says, a CHECK says, for our rows only: the host's may keep whatever they hold.
--   * The foreign keys of `vps_billing_cycles` go. Two of them delete charges together with their instance or
--     organization, so the history of what was paid disappears, and debts with it. All of them cost: a run over a million
--     instances takes 2.9 times as long with them.
--   * Five indexes of `vps_billing_cycles` make room for ours: with them a run takes 1.9 times as long and writes twice
--     the WAL. The index on `vps_instances.last_billed_at` makes every watermark update touch every index of the table
--     (2.1 times), and helps nobody to find what is due.
--   * Watermarks move to where the ledger says an instance is paid up to, and wallets get an opening.
--
-- Why this is not one transaction: it would hold an exclusive lock on the ledger while indexes are built over it, which
-- is minutes on a big one. So the file is a row of steps. A step between `begin` and `commit` takes its locks for
-- milliseconds unless it says otherwise; an index is built concurrently, while everybody reads and writes. Every step
-- may be repeated, so a migration killed half-way is finished by running it again, from the start, also with psql.

-- step: columns and exact amounts of vps_billing_cycles
begin;
-- run_id is what tells our charges from the host's rows: ours always have it, the host never writes it.
alter table vps_billing_cycles
    add column if not exists run_id bigint,
    add column if not exists plan_id uuid,
    add column if not exists segment_id bigint,
    add column if not exists grown_from timestamptz,
    add column if not exists past_due_since timestamptz;

-- A view, a policy or a generated column that reads an amount forbids changing its type. That must not stop the rest:
-- the column is left as it is, the adoption report prints the statements that change it, and nothing is billed until
-- then, because a ledger of two decimals cannot hold what is owed.
do $$
declare
    amount record;
begin
    for amount in
        select attname from pg_attribute
         where attrelid = 'vps_billing_cycles'::regclass and attname in ('hourly_rate', 'total_amount') and atttypmod <> -1
    loop
        begin
            execute format('alter table vps_billing_cycles alter column %I type numeric', amount.attname);
        exception when feature_not_supported or syntax_error then
            raise notice 'vps_billing_cycles.% keeps its two or four decimals for now: %', amount.attname, sqlerrm;
        end;
    end loop;
end
$$;

-- NOT VALID spares the scan. It loses nothing: at this moment no row is ours, and every later one is checked.
-- NaN is greater than every number, so the upper bounds refuse it.
do $$
begin
    if not exists (select from pg_constraint where conrelid = 'vps_billing_cycles'::regclass
                                               and conname = 'vps_billing_cycles_charge_is_exact') then
        alter table vps_billing_cycles add constraint vps_billing_cycles_charge_is_exact check (
            run_id is null
            or (hourly_rate >= 0 and hourly_rate < 10000000000 and scale(hourly_rate) <= 8
                and total_amount >= 0 and total_amount < 10000000000 and scale(total_amount) <= 8)
        ) not valid;
    end if;
    if not exists (select from pg_constraint where conrelid = 'vps_billing_cycles'::regclass
                                               and conname = 'vps_billing_cycles_charge_period_is_forward') then
        alter table vps_billing_cycles add constraint vps_billing_cycles_charge_period_is_forward check (
            run_id is null
            or (isfinite(billing_period_start) and isfinite(billing_period_end)
                and billing_period_start < billing_period_end)
        ) not valid;
    end if;
end
$$;

comment on column vps_billing_cycles.run_id is 'the billing run that wrote this charge; null: written by the host application';
comment on column vps_billing_cycles.plan_id is 'the plan whose price the hourly rate is';
comment on column vps_billing_cycles.segment_id is 'the usage segment that this charge closes; null: a running instance';
comment on column vps_billing_cycles.grown_from is 'a past-due charge grows at its end; this is the end it grew from';
comment on column vps_billing_cycles.past_due_since is 'when the wallet first could not pay this charge; kept after it was paid';
commit;

-- step: history outlives its instance
begin;
-- All four tables are locked at once and in the order in which the host writes them, so that no deadlock with it is
-- possible in the middle. The triggers of the foreign keys live on the tables they point to.
lock table vps_billing_cycles, payment_transactions, vps_instances, organizations in access exclusive mode;
do $$
declare
    key record;
begin
    for key in
        select conname from pg_constraint
         where contype = 'f' and conrelid = 'vps_billing_cycles'::regclass
           and confrelid in ('vps_instances'::regclass, 'organizations'::regclass, 'payment_transactions'::regclass)
    loop
        execute format('alter table vps_billing_cycles drop constraint %I', key.conname);
    end loop;
end
$$;
commit;

-- step: watermarks and room for updates in vps_instances
begin;
-- rated_until is our copy of the watermark. The host writes last_billed_at too, and where the two differ we can tell.
-- rated_from is the first instant we answer for. 30 % of each page stay free, so that an hourly watermark update finds
-- room beside the row and touches no index: the third run takes 8.5 s instead of 11.0 for a million instances.
alter table vps_instances
    add column if not exists last_billed_at timestamptz,
    add column if not exists rated_from timestamptz,
    add column if not exists rated_until timestamptz;
alter table vps_instances set (fillfactor = 70);
comment on column vps_instances.rated_from is 'the watermark at adoption or insertion: billing answers for every hour since';
comment on column vps_instances.rated_until is 'the watermark as billing last wrote it, beside last_billed_at, which the host may write';

do $$
declare
    stale record;
begin
    if not exists (select from pg_index where indrelid = 'vps_instances'::regclass and indisvalid
                      and indpred is null
                      and indkey[0] = (select attnum from pg_attribute
                                        where attrelid = 'vps_instances'::regclass and attname = 'organization_id')) then
        create index idx_vps_instances_org_id on vps_instances (organization_id);
    end if;
    -- Only the plain index on that one column: another that merely contains it was somebody's decision, and the
    -- adoption report names it.
    for stale in
        select i.indexrelid::regclass as name
          from pg_index i
         where i.indrelid = 'vps_instances'::regclass and not i.indisunique and i.indnatts = 1
           and i.indkey[0] = (select attnum from pg_attribute
                               where attrelid = 'vps_instances'::regclass and attname = 'last_billed_at')
    loop
        execute format('drop index %s', stale.name);
    end loop;
end
$$;

-- The host stamps updated_at in a row trigger. Called once per instance and hour it costs 0.8 s of a run of 7.4 s, and
-- makes every instance look edited every hour. The same trigger with a WHEN keeps its whole effect for the host: it is
-- passed over only by an update that moves rated_until, which the host never writes, and changes nothing else that a
-- person would call an edit. (When one of the columns named here changes, our own row trigger moves rated_until as well,
-- within the host's statement: that is why they are named.)
--
-- The comparison is a function over whole rows, inlined and so free. A WHEN that names a column would forbid the host to
-- change the type of that column ever again. 016 adds the backups of the successor's schema to it.
create or replace function billing_is_edit(before vps_instances, after vps_instances) returns boolean
    language sql stable parallel safe
as $$
    select after.rated_until is not distinct from before.rated_until
        or (before.organization_id, before.plan_id, before.status, before.label)
            is distinct from (after.organization_id, after.plan_id, after.status, after.label)
$$;
do $$
declare
    stamp record;
begin
    for stamp in
        select t.tgname, t.tgfoid::regproc as function_name
          from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = 'vps_instances'::regclass and not t.tgisinternal
           and p.proname = 'update_updated_at_column'
           and t.tgtype = 19                        -- BEFORE UPDATE FOR EACH ROW
           and t.tgqual is null and t.tgattr = '' and t.tgnargs = 0 and t.tgenabled = 'O'
    loop
        execute format(
            'create or replace trigger %I before update on vps_instances for each row
             when (billing_is_edit(old, new)) execute function %s()', stamp.tgname, stamp.function_name);
    end loop;
end
$$;
commit;

-- step: openings and carried remainders of wallets
begin;
-- balance = opening + sum of completed ledger entries holds for every wallet from here on. The opening is what the
-- balance was beyond its entries when we first saw the wallet: the host lost updates and wrote balances by hand, and
-- that past is neither repaired nor forgotten. The lock keeps a top-up from falling between balance and sum.
--
-- A ledger entry names an organization and a currency, not a wallet. Where there are several wallets of a pair, the
-- entries are those of the oldest; the others start from their balance.
create or replace function billing_open_wallet() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    new.billing_opening := coalesce(nullif(new.balance, 'NaN'), 0);
    if not exists (select from wallets w
                    where w.organization_id = new.organization_id and w.currency is not distinct from new.currency) then
        select new.billing_opening - coalesce(sum(p.amount), 0)
          into new.billing_opening
          from payment_transactions p
         where p.organization_id = new.organization_id and p.currency is not distinct from new.currency
           and p.status = 'completed' and p.amount <> 'NaN';
    end if;
    return new;
exception when others then
    -- The host's own INSERT never fails because of us. A wrong opening is found by `verify`, and is a number, not money.
    new.billing_opening := 0;
    return new;
end
$$;

lock table wallets in access exclusive mode;
do $$
begin
    if exists (select from pg_attribute where attrelid = 'wallets'::regclass and attname = 'billing_opening') then
        return;                                     -- a second opening would swallow whatever drifted since the first
    end if;
    alter table wallets
        add column billing_carry numeric(12, 8) not null default 0
            constraint wallets_carry_below_a_cent check (billing_carry >= 0 and billing_carry < 0.01),
        add column billing_opening numeric not null default 0,
        add column past_due_since timestamptz;
    with entries as (
        select organization_id, currency, sum(amount) as total
          from payment_transactions
         where status = 'completed' and amount <> 'NaN'
         group by organization_id, currency
    ), ranked as (
        select id, organization_id, currency, coalesce(nullif(balance, 'NaN'), 0) as balance,
               row_number() over (partition by organization_id, currency order by created_at, id) as age_rank
          from wallets
    )
    update wallets w
       set billing_opening = r.balance - case when r.age_rank = 1 then coalesce(e.total, 0) else 0 end
      from ranked r
      left join entries e on e.organization_id = r.organization_id and e.currency is not distinct from r.currency
     where r.id = w.id;
end
$$;
create or replace trigger billing_open_wallet before insert on wallets
    for each row execute function billing_open_wallet();
comment on column wallets.billing_carry is 'billed but not yet debited, below one cent';
comment on column wallets.billing_opening is 'what the balance was beyond the completed ledger entries when billing first saw it';
comment on column wallets.past_due_since is 'since when this wallet has charges it could not pay; null: none';
commit;

-- step: clear away indexes that a killed build left unusable
begin;
-- The lock waits for a build that may still be going on in a session whose client was killed. What is invalid after
-- that is nobody's any more. An index that became valid meanwhile stays.
lock table vps_billing_cycles in share update exclusive mode;
do $$
declare
    broken record;
begin
    for broken in
        select i.indexrelid::regclass as name
          from pg_index i join pg_class c on c.oid = i.indexrelid
         where i.indrelid = 'vps_billing_cycles'::regclass and not i.indisvalid
           and c.relname like 'vps\_billing\_cycles\_%'
    loop
        execute format('drop index %s', broken.name);
    end loop;
end
$$;
commit;

-- step: the unique key over our charges
-- For our rows the last column is null, and nulls are not distinct: one charge per organization, instance and start.
-- For the host's, which may hold the same hour twice already, it is their own id, so nothing of theirs is refused.
-- Organization first, because a batch is a range of organizations; then the start, because the hours of this run then
-- stand side by side at the end of their organization, and a batch writes to a page per organization instead of one per
-- instance, however deep the history is. It covers all rows, because the host's billing pages read the history of an
-- organization through it too: a second index for them made the insert of charges a quarter slower, and a partial one
-- cannot be chosen for queries that do not say `run_id is null`.
create unique index concurrently if not exists vps_billing_cycles_one_charge_per_hour
    on vps_billing_cycles (organization_id, billing_period_start, vps_instance_id,
        (case when run_id is null then id end)) nulls not distinct;

-- step: charges that are past due
create index concurrently if not exists vps_billing_cycles_open_debts
    on vps_billing_cycles (organization_id) where status = 'failed' and run_id is not null;

-- step: charges that were past due once
create index concurrently if not exists vps_billing_cycles_former_debts
    on vps_billing_cycles (run_id, organization_id) where past_due_since is not null;

-- step: the host's own indexes on vps_billing_cycles
begin;
-- Those that the host's installer makes, recognised by what they cover. An index somebody added stays, unique or not,
-- and the adoption report says what it costs.
do $$
declare
    replaced record;
begin
    for replaced in
        select i.indexrelid::regclass as name
          from pg_index i
         where i.indrelid = 'vps_billing_cycles'::regclass
           and not i.indisunique and i.indpred is null and i.indexprs is null
           and (select string_agg(a.attname, ',' order by k.position)
                  from unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
                  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum)
               in ('vps_instance_id', 'organization_id', 'status', 'created_at', 'billing_period_start,billing_period_end')
    loop
        execute format('drop index %s', replaced.name);
    end loop;
end
$$;
commit;

-- step: watermarks at adoption
begin;
-- An instance is paid up to the later of its watermark and the end of its last billed row, wherever the host's two
-- transactions left them. A result in the future, or one that is infinite or missing, is not believed: last_billed_at
-- stays as it is. The rows are locked for as long as this one statement runs; the ledger is read before the first.
with paid as (
    select vps_instance_id, max(billing_period_end) as paid_until
      from vps_billing_cycles
     where status = 'billed' and isfinite(billing_period_end)
     group by vps_instance_id
), candidates as (
    select i.id, i.last_billed_at, coalesce(i.last_billed_at, i.created_at) as watermark,
           greatest(coalesce(i.last_billed_at, i.created_at), p.paid_until) as later
      from vps_instances i
      left join paid p on p.vps_instance_id = i.id
     where i.rated_from is null
), believed as (
    select id,
           case when isfinite(later) and later <= clock_timestamp() then later else last_billed_at end as last_billed_at,
           case when isfinite(later) and later <= clock_timestamp() then later
                when isfinite(watermark) then watermark end as rated
      from candidates
)
update vps_instances i
   set last_billed_at = b.last_billed_at, rated_from = b.rated, rated_until = b.rated
  from believed b
 where b.id = i.id and b.rated is not null;
commit;
