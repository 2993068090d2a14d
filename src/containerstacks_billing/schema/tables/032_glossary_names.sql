-- The names of the glossary for what the migrations before the first release called otherwise: a closed part of an instance's life is a
-- usage segment, and pending until a run flushes it; an instance is quarantined; a charge is past due. On a database that the
-- baseline made, nothing is there to rename.
--
-- One transaction, so every name changes at once; but functions follow in code/functions.sql, a moment later. An UPDATE of
-- vps_instances that falls between the two fails, so the host application is stopped for it. No released version needs this.
--
-- locks: Renames columns, indexes and functions where they have their earlier names; milliseconds.

do $$
begin
    if to_regtype('billing_stretch') is null then
        return;
    end if;
    alter type billing_stretch rename to billing_pending_segment;
    alter table vps_instances rename column closed_stretches to pending_segments;
    alter table vps_billing_cycles rename column debt_batch to past_due_batch;
    alter index vps_billing_cycles_open_debts rename to vps_billing_cycles_past_due;
    alter index vps_billing_cycles_former_debts rename to vps_billing_cycles_once_past_due;
    alter table billing_set_aside_counts rename to billing_quarantine_counts;
    alter index billing_set_aside_counts_pkey rename to billing_quarantine_counts_pkey;

    -- Triggers and conditions depend on these.
    alter function billing_ends_stretch(vps_instances, vps_instances) rename to billing_ends_segment;
    alter function billing_keep_stretches() rename to billing_keep_pending_segments;
    alter trigger billing_keep_stretches on vps_instances rename to billing_keep_pending_segments;
    -- Their arguments have other names, which `create or replace` cannot change.
    drop function billing_segments_of(vps_instances, billing_pending_segment[]);
    drop function billing_due_stretches(billing_pending_segment[], timestamptz, boolean, text[]);
    drop function billing_spill_stretches(vps_instances, billing_pending_segment[]);
    drop function billing_closed_stretches();
    drop function billing_stretch_end(text, timestamptz, timestamptz);
    drop function billing_judge_segment(text, timestamptz, timestamptz);
    drop function billing_hold_organizations(uuid, uuid);
end
$$;

comment on column billing_policies.settled is
    'false while the segments that the previous policy left open are still being closed';
comment on column plan_price_versions.begins_at_commit is 'false: the instant from which it holds was given';
comment on table billing_events is 'Events for the host, once each; no foreign keys: an event outlives what it is about';
comment on column vps_instances.pending_segments is
    'usage segments that a change has closed since the last run, oldest first, until a run flushes them to billing_usage_segments';
