-- Signs of life of application sides. Nothing is decided by them but what is said to take over; a row is written again at each
-- look, so the table may be emptied or dropped at any time.

-- name: report_application_side
-- Write the sign of life of one application side, and remove those of sides that ended without a word a day ago.
with gone as (
    delete from billing_application_sides
    where holder <> %(holder)s and looked_at < billing_clock() - interval '1 day'
)
insert into billing_application_sides as side (holder, setting, failover_after, looked_at)
values (%(holder)s, %(setting)s, %(failover_after)s, billing_clock())
on conflict (holder) do update
set setting = excluded.setting, failover_after = excluded.failover_after, looked_at = excluded.looked_at;

-- name: withdraw_application_side
-- Remove the sign of life of an application side that ends.
delete from billing_application_sides where holder = %(holder)s;
