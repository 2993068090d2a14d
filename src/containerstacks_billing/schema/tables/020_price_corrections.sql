-- Corrections of prices in the past: what was decided, and what it changed for each charge.
--
-- A charge is a fact and is never rewritten once it is billed: the customer has seen it, and it has a ledger entry. What a
-- correction changes is written beside it, as an adjustment: these hours of this charge, the rate of before, the rate of
-- now, the exact signed difference (positive: the customer pays more). So for every wallet
--
--     sum of billed charges + sum of adjustments = sum of debits - sum of credits + carry
--
-- A past-due charge has moved no money yet and is rated anew in its own row.
--
-- A correction replaces the price of one span: from an instant until the next recorded version begins. Spans of one plan
-- are therefore disjoint or nested, never crossed, and the later one counts. The row of a correction keeps the price that it
-- replaced, which is what the hours of the span are recognised by. The unique key of an adjustment lets a correction that was
-- killed, or that found a wallet short, be given again: it posts what is missing and nothing twice.

create table if not exists billing_price_corrections (
    id                  bigint generated always as identity primary key,
    plan_id             uuid        not null,
    corrected_from      timestamptz not null,
    corrected_until     timestamptz not null,
    old_base_price      numeric,
    old_markup_price    numeric,
    new_base_price      numeric     not null,
    new_markup_price    numeric     not null,
    backup_hourly       numeric     not null default 0,
    decided_at          timestamptz not null,
    decided_by          text        not null,
    reason              text,
    last_posted_at      timestamptz,
    unposted_charges    bigint,
    unposted_amount     numeric,
    constraint billing_price_corrections_forward check (corrected_from < corrected_until)
);
create index if not exists billing_price_corrections_plan on billing_price_corrections (plan_id, corrected_from);
comment on column billing_price_corrections.corrected_until is
    'the begin of the next recorded version, at most decided_at: later hours were rated at the new price from the start';
comment on column billing_price_corrections.unposted_charges is
    'how many charges wallets could not pay the difference of, when it was last given; null: it was not finished yet';

create table if not exists billing_adjustments (
    id                     bigint generated always as identity primary key,
    correction_id          bigint      not null,
    posting                uuid        not null,
    charge_id              uuid        not null,
    organization_id        uuid        not null,
    instance_id            uuid        not null,
    hours_from             timestamptz not null,
    hours_until            timestamptz not null,
    old_rate               numeric     not null,
    new_rate               numeric     not null,
    amount                 numeric     not null,
    payment_transaction_id uuid,
    created_at             timestamptz not null,
    decided_by             text        not null,
    reason                 text,
    constraint billing_adjustments_once unique (organization_id, charge_id, correction_id),
    constraint billing_adjustments_forward check (hours_from < hours_until),
    constraint billing_adjustments_exact check (amount > -10000000000 and amount < 10000000000 and scale(amount) <= 8)
);
comment on table billing_adjustments is 'The exact differences that price corrections made to billed charges; positive: the customer pays more';
comment on column billing_adjustments.posting is 'the transaction that posted it: one ledger entry at most per wallet and posting';
comment on column billing_adjustments.payment_transaction_id is 'null where the wallet''s whole cents did not change';
