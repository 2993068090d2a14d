-- What leaks found, so that a page and an alert know what is not billed without reading the fleet.
-- creates: billing_leak_reports, which the daemon and the verb leaks write; the newest few hundred stay

create table if not exists billing_leak_reports (
    id            bigint generated always as identity primary key,
    read_at       timestamptz not null,
    found_by      text        not null,
    currency      text        not null,
    has_inventory boolean     not null,
    reasons       jsonb       not null
);
comment on table billing_leak_reports is 'What is not billed, by reason and in money a month; the newest few hundred';
comment on column billing_leak_reports.has_inventory is 'whether the provider''s own list was compared with the rows';
comment on column billing_leak_reports.reasons is 'by reason: leaks, unknownPrice, monthly';
