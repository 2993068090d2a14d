-- The two formulas of charging that several statements share, so that none of them can have its own opinion.

-- What [started_at, ended_at) costs at an hourly rate of at most eight decimals, rounded half up to eight decimals.
-- Exact: the division is one of whole numbers (hundred-millionths times microseconds), so nothing is rounded twice.
create or replace function billing_amount(hourly_rate numeric, started_at timestamptz, ended_at timestamptz) returns numeric
    language sql immutable parallel safe
as $$
    select div(hourly_rate * 100000000 * 2 * (extract(epoch from ended_at - started_at) * 1000000) + 3600000000, 7200000000)
        * 0.00000001
$$;

-- An identifier that belongs to one batch: sixteen hexadecimal digits of run and batch in front, a hash behind. So the
-- rows of a batch stand side by side in the primary key, they are read back by a range of it, and the key grows at
-- one end. It is a UUID of version 8, which leaves the content to the maker.
create or replace function billing_batch_uuid(batch_key text, hash bigint) returns uuid
    language sql immutable parallel safe
as $$
    -- The highest bit set and the three below it cleared make the digit 8, and keep the leading zeros.
    select (batch_key || to_hex(hash & 1152921504606846975 | -9223372036854775808))::uuid
$$;

-- The number of the batch that grew or paid a debt: the row is older than the batch, so its identifier does not tell.
alter table vps_billing_cycles add column if not exists debt_batch integer;
