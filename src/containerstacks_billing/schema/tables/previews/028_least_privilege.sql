-- Functions that nobody calls by himself.
select 'Creates billing_admit(), which gives a role the rights to bill: no table is locked and no role is made.';
