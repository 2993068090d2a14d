-- no-transaction
-- 023_tokens.sql — tokens that open the application side, and how it sees that the host still bills by itself.
--
-- A token is 256 random bits, so its SHA-256 cannot be searched for and needs no salt: who reads this table, or a backup of
-- it, cannot use what is in it. A revoked token keeps its row, because "who was it" is asked later.

-- step: tokens
begin;
create table if not exists billing_tokens (
    id           bigint generated always as identity primary key,
    name         text        not null
        constraint billing_tokens_short_name check (char_length(name) between 1 and 100),
    token_hash   bytea       not null
        constraint billing_tokens_one_per_hash unique
        constraint billing_tokens_sha_256 check (octet_length(token_hash) = 32),
    created_at   timestamptz not null default billing_clock(),
    created_by   text        not null,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
create unique index if not exists billing_tokens_one_per_name on billing_tokens (name) where revoked_at is null;
comment on table billing_tokens is 'Admin tokens of the application side; only their SHA-256 is kept';
-- Built-in billing asks for its own last run every minute, among all the runs of the daemon.
create index if not exists billing_runs_built_in on billing_runs (id) where trigger = 'built-in';
create index if not exists billing_events_dead on billing_events (id) where dead_at is not null;
commit;

-- step: clear away an index that a killed build left unusable
begin;
do $$
begin
    if exists (select from pg_index where indexrelid = to_regclass('payment_transactions_debits_of_host') and not indisvalid) then
        drop index payment_transactions_debits_of_host;
    end if;
end
$$;
commit;

-- step: debits that are not ours
-- BUILT_IN_BILLING=auto asks for the newest one every minute. Our own debits name their run in provider_transaction_id and
-- stay out of the index, so a run does not pay for it.
create index concurrently if not exists payment_transactions_debits_of_host on payment_transactions (created_at)
    where payment_method = 'wallet_debit' and coalesce(provider_transaction_id, '') not like 'billing-%';
