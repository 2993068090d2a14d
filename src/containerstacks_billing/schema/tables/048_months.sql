-- Closed months: what the hours of a month came to by organization, and what was debited, frozen with a hash that follows from the
-- month before.
--
-- What is frozen is a function of rows that do not change any more: charges billed by the runs up to last_run_id, and entries and
-- adjustments posted within a month that is over. So it is derived again at any time, range by range, and has to come out the same.
-- No foreign keys: a closed month outlives runs and organizations.
-- creates: billing_months and billing_month_totals, which are written when a month is closed

create table if not exists billing_months (
    month           text        primary key
        constraint billing_months_month check (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    starts_at       timestamptz not null,
    ends_at         timestamptz not null,
    state           text        not null default 'closing'
        constraint billing_months_known_state check (state in ('closing', 'closed')),
    last_run_id     bigint      not null,
    closed_by       text        not null,
    closing_since   timestamptz not null default billing_clock(),
    closed_at       timestamptz,
    previous_sha256 text,
    sha256          text,
    constraint billing_months_closed check ((state = 'closed') = (closed_at is not null and sha256 is not null))
);
comment on table billing_months is 'Months that are closed or being closed; sha256 is over the lines of its organizations and the hash of the month before';
comment on column billing_months.last_run_id is 'charges billed by later runs for hours of this month count in the month in which they were billed';

create table if not exists billing_month_totals (
    month           text    not null,
    organization_id uuid    not null,
    charges         bigint  not null,
    instances       bigint  not null,
    seconds         numeric not null,
    amount          numeric not null,
    late_charges    bigint  not null,
    late_seconds    numeric not null,
    late_amount     numeric not null,
    billed          numeric,
    adjustments     numeric,
    debits          numeric,
    credits         numeric,
    carry_in        numeric,
    carry_out       numeric,
    sha256          text    not null,
    primary key (month, organization_id)
);
comment on table billing_month_totals is 'Closed months by organization: hours that start in the month and their amount, what was posted in it, and what was carried';
comment on column billing_month_totals.late_amount is 'billed in this month for hours of months that were closed already';
comment on column billing_month_totals.billed is 'billed by the runs of this month, whichever hours it was for; null with what follows: the organization is deleted';
comment on column billing_month_totals.sha256 is 'SHA-256 over the lines of the hours, as months export writes them';
