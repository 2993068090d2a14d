-- name: may_create
-- The answer that hosts get from SQL, to the letter.
select billing_may_create(%(organization)s, %(plan)s, %(hours)s, %(currency)s);

-- name: set_minimum
-- Set the minimum of a plan, or of all plans without one of their own.
insert into billing_minimum_balances (plan_id, amount, set_by, reason)
values (%(plan_id)s, %(amount)s, %(by)s, %(reason)s)
on conflict (plan_id) do update
set amount = excluded.amount, set_at = billing_clock(), set_by = excluded.set_by, reason = excluded.reason;

-- name: remove_minimum
-- Remove the minimum of a plan, for which the common one holds again.
delete from billing_minimum_balances where plan_id is not distinct from %(plan_id)s::uuid;

-- name: list_minimums
-- The minimums that are set, the common one first.
select minimum.plan_id, plan.name::text as plan, amount, set_at, set_by, reason
from billing_minimum_balances minimum left join vps_plans plan on plan.id = minimum.plan_id
order by minimum.plan_id is not null, plan.name, minimum.plan_id;
