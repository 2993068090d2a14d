-- New tables alone.
select 'Creates billing_policies, billing_leases and billing_runs: nothing of the host''s is locked.';
