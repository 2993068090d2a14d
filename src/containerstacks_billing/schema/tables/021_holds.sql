-- What the brake remembers of a run, and which run's hold binds which others.
--
-- The average price of an instance says little when many instances have no price at the moment: a plan whose price became
-- unusable and was repaired would look like a jump of the whole fleet. So the instances that had a price are counted
-- beside all. And an average hides one plan among many, so the hourly rate of each plan in use is kept too: a few
-- hundred bytes a run, one entry per plan, never one per instance.
--
-- A run that finds an objection of its own is the hold (held_by is null). The runs after it end as held as well, each
-- hour, and name it; releasing it releases them. What it saw is then what the next run is compared with.

alter table billing_runs
    add column if not exists fleet_rated_instances bigint not null default 0,
    add column if not exists fleet_rates jsonb not null default '{}',
    add column if not exists held_by bigint;
create index if not exists billing_runs_holds on billing_runs (id desc) where outcome = 'held' and held_by is null;
comment on column billing_runs.fleet_rated_instances is 'billable instances whose plan had a usable price at as_of';
comment on column billing_runs.fleet_rates is 'hourly rate of each plan when it was last in use with a usable price, by the name that instances know it by';
comment on column billing_runs.held_by is 'the run whose hold bound this one; null: it was held for what it saw itself';

-- rated_until is what tells a watermark that was moved back from one that is right. Without it half an hour could be
-- charged a second time, and no key would see it. So it may be corrected, but not be taken away: a row that is written back
-- from an older copy by a program that does not know the column keeps it.
create or replace function billing_keep_rated_until() returns trigger
    language plpgsql
as $$
begin
    new.rated_until := old.rated_until;
    return new;
end $$;

drop trigger if exists billing_keep_rated_until on vps_instances;
create trigger billing_keep_rated_until before update on vps_instances
    for each row when (new.rated_until is null and old.rated_until is not null)
    execute function billing_keep_rated_until();
