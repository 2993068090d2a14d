-- Functions alone.
select 'Replaces the function that shows announced prices: no table is locked.';
