-- Creation fees: whether the fee that the host takes for the first hour of an instance pays for that hour, or is extra.

-- locks: billing_policies and billing_usage_segments for an instant, to add a column and to replace a constraint
alter table billing_policies add column if not exists creation_fee text not null default 'extra'
    constraint billing_policies_known_creation_fee check (creation_fee in ('extra', 'covers-first-hour'));
comment on column billing_policies.creation_fee is 'whether the host''s debit "VPS Creation - … (Initial Hour)" pays for the first hour';

alter table billing_usage_segments drop constraint if exists billing_usage_segments_known_reason;
alter table billing_usage_segments add constraint billing_usage_segments_known_reason check (reason in (
    'status', 'plan', 'organization', 'backups', 'deleted', 'policy', 'restored', 'watermark', 're-keyed', 'creation'));
