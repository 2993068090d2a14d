-- Organizations before wallets. A ledger entry refers to its organization, so to write one a batch needs a lock on the row of the
-- organization, which came after those of the wallets. A host that deletes an organization, or locks it before its wallet, goes the
-- other way round, and where both met the server ended one of them: the host's lone statement, as a rule, since it had waited
-- longer. Asked for first, the lock is waited for by whoever holds nothing yet. It is the weakest there is, and lets the host
-- change everything but the key. The role that bills may not write organizations, and so may not lock them either, by itself.

create or replace function billing_hold_organizations(first uuid, last uuid) returns void
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    perform from organizations where id between first and last order by id for key share;
end $$;

-- And watermarks at adoption once more. 013 decides by the ledger and the watermarks as they were when its statement began; what the host
-- billed until the statement came to a row was overwritten with the older watermark, and the first run would have charged that
-- hour again. Where nothing of ours was ever charged, the end of what the host billed counts again, and a row that
-- the host moves meanwhile is left to it: its own watermark is the later one then.
do $$
begin
    if exists (select from billing_runs where batches > 0) then
        return;
    end if;
    perform set_config('containerstacks_billing.advancing', 'on', true);
    update vps_instances instance
    set last_billed_at = paid.until, rated_from = paid.until, rated_until = paid.until
    from (
        select instance.id, instance.last_billed_at as seen, max(billing_period_end) as until
        from vps_instances instance join vps_billing_cycles cycle on cycle.vps_instance_id = instance.id
        where cycle.status = 'billed' and cycle.run_id is null and isfinite(billing_period_end)
          and isfinite(instance.rated_until)
        group by instance.id
    ) paid
    where instance.id = paid.id and instance.last_billed_at is not distinct from paid.seen
      and paid.until > instance.rated_until and paid.until <= clock_timestamp()
      and not exists (
        select from billing_usage_segments segment
        where segment.organization_id = instance.organization_id and segment.instance_id = instance.id)
      and instance.closed_stretches is null;
    perform set_config('containerstacks_billing.advancing', 'off', true);
end $$;
