-- New tables alone.
select 'Creates billing_quarantine and billing_decisions: nothing of the host''s is locked.';
