-- no-transaction
-- What is charged is known from charges, not from the row that carries the watermark; charging/README.md, "No hour twice".
--
-- sealed_by names the transaction in which billing last wrote a row of vps_instances. The server itself says in xmin who
-- wrote the row, so a row is sealed where both are the same: nothing wrote it since, with triggers or without. Every other
-- row is compared with what is charged before anything of it is.
--
-- billing_charged_until says under which organizations an instance has hours, and until when it was rated when its row left one:
-- deleted, truncated, moved, or given another id. It outlives all of them.
--
-- step: what is known of rows that leave and come back
-- locks: {vps_instances} gets the column sealed_by; locked for milliseconds.
begin;
alter table vps_instances add column if not exists sealed_by xid;
comment on column vps_instances.sealed_by is 'the transaction in which billing last wrote this row; another one than xmin: the row is compared with the charges first';

create table if not exists billing_charged_until (
    instance_id     uuid        not null,
    organization_id uuid        not null,
    charged_until   timestamptz not null default '-infinity',
    constraint billing_charged_until_pkey primary key (instance_id, organization_id)
);
comment on table billing_charged_until is 'Which organizations an instance has hours under, and until when it was rated when its row left; outlives the row';

alter table billing_usage_segments add column if not exists compared boolean not null default false;
comment on column billing_usage_segments.compared is 'whether its hours were compared with what was charged before';
create index if not exists billing_usage_segments_uncompared on billing_usage_segments (organization_id) where not compared;
alter table billing_usage_segments drop constraint if exists billing_usage_segments_known_reason;
alter table billing_usage_segments add constraint billing_usage_segments_known_reason
    check (reason in ('status', 'plan', 'organization', 'backups', 'deleted', 'policy', 'restored', 'watermark', 're-keyed'));
alter table billing_usage_segments drop constraint if exists billing_usage_segments_known_outcome;
alter table billing_usage_segments add constraint billing_usage_segments_known_outcome
    check (outcome in ('charged', 'not billable', 'free', 'waived', 'damaged', 'repeated'));
commit;

-- step: charges of more than an hour
-- locks: builds an index over the charges in {vps_billing_cycles} that span more than an hour, while everybody reads and writes.
-- An hour that is charged by itself is found by its start; a charge of several hours may have begun long before.
create index concurrently if not exists vps_billing_cycles_long_charges on vps_billing_cycles (vps_instance_id, billing_period_end)
    where run_id is not null and billing_period_end - billing_period_start > interval '1 hour';
