-- New tables alone.
select 'Creates billing_price_corrections and billing_adjustments: nothing of the host''s is locked.';
