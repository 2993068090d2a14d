-- A clock for throw-away databases, with a start, a speed and a reading that can be set.
--
-- Inside a transaction it stands still from its first reading on, as long as the transaction lasts. So metering and the
-- journal of the oracle write the same instant, and a host that waited for a row before it read the clock is late and not
-- early. Every setting is noted in oracle.steps with what the clock said before.

create table oracle.clock (
    at    timestamptz      not null,
    since timestamptz      not null,
    speed double precision not null
);

create function oracle.reading() returns timestamptz
    language sql volatile security definer set search_path = public, pg_temp
as 'select at + (clock_timestamp() - since) * speed from oracle.clock';

create or replace function billing_clock() returns timestamptz
    language plpgsql volatile security definer set search_path = public, pg_temp set datestyle = 'ISO'
as $$
declare
    known text := current_setting('oracle.reading', true);
begin
    if coalesce(known, '') = '' then
        known := oracle.reading()::text;
        perform set_config('oracle.reading', known, true);
    end if;
    return known::timestamptz;
end $$;

create function oracle.set_clock(next_at timestamptz, next_speed double precision) returns timestamptz
    language plpgsql
as $$
declare
    before timestamptz;
begin
    lock table oracle.clock in access exclusive mode;
    before := oracle.reading();
    insert into oracle.steps (before, after) values (before, coalesce(next_at, before));
    update oracle.clock set at = coalesce(next_at, before), since = clock_timestamp(), speed = coalesce(next_speed, speed);
    return before;
end $$;
