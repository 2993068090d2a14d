-- Functions alone.
select 'Replaces functions that record prices: no table is locked.';
