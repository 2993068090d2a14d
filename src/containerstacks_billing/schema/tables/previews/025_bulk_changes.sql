-- A setting of a function.
select 'Tells a function of metering how to plan: no table is locked.';
