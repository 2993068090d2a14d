-- no-transaction
-- What is past due, by organization and hour: the oldest hour of a customer is the first row of the index, so a look for money
-- that came in reads one row per customer, however many hours are past due and however long the history is. The index before
-- knew the organization alone; the planner could as well walk through all that it was ever charged.
--
-- grown_from belonged to past-due charges that grew from run to run. None has grown since, and nothing reads it.
--
-- step: clear away what a killed build left unusable
begin;
lock table vps_billing_cycles in share update exclusive mode;
do $$
begin
    if exists (select from pg_index
               where indexrelid = to_regclass('vps_billing_cycles_past_due_hours') and not indisvalid) then
        drop index vps_billing_cycles_past_due_hours;
    end if;
end
$$;
commit;

-- step: past-due charges by hour
-- locks: An index of {vps_billing_cycles}, of past-due charges by hour, is built concurrently in about {read vps_billing_cycles} s; everybody reads and writes meanwhile.
create index concurrently if not exists vps_billing_cycles_past_due_hours
    on vps_billing_cycles (organization_id, billing_period_start, vps_instance_id) where status = 'failed' and run_id is not null;

-- step: the index that it replaces
-- locks: The index of past-due charges by organization is dropped while everybody reads and writes.
drop index concurrently if exists vps_billing_cycles_past_due;

-- step: a column without use
-- locks: {vps_billing_cycles} loses the column grown_from; locked for milliseconds. It stays where a view of the host shows it.
begin;
do $$
begin
    alter table vps_billing_cycles drop column if exists grown_from;
exception when dependent_objects_still_exist then
    comment on column vps_billing_cycles.grown_from is 'of an earlier version, without use';
end
$$;
commit;
