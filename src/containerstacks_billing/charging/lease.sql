-- The lease around a run. It expires by clock_timestamp(), since the now() of a long transaction stands still.

-- name: acquire_lease
-- Take the lease if it is free. An expiry further ahead than a lease is long is of a clock that was set back since, and
-- holds nothing. The change of the key waits for batches of the previous holder that are under way.
update billing_leases
set holder = %(holder)s, fencing_token = fencing_token + 1, nonce = gen_random_uuid(),
    acquired_at = clock_timestamp(), renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + %(lease_seconds)s * interval '1 second'
where name = 'billing'
  and (expires_at <= clock_timestamp() or expires_at > clock_timestamp() + %(lease_seconds)s * interval '1 second')
returning fencing_token, nonce;

-- name: renew_lease
-- Extend the lease, if it is still this one. No key column changes, so running batches do not wait.
update billing_leases
set renewed_at = clock_timestamp(), expires_at = clock_timestamp() + %(lease_seconds)s * interval '1 second'
where name = 'billing' and fencing_token = %(fencing_token)s and nonce = %(nonce)s
returning true;

-- name: release_lease
-- Give the lease back. The nonce changes, so nothing that was left behind can still charge under it.
update billing_leases
set holder = null, nonce = gen_random_uuid(), expires_at = '-infinity'
where name = 'billing' and fencing_token = %(fencing_token)s and nonce = %(nonce)s;

-- name: lease_holder
-- The holder of the lease and its seconds left. An expiry further ahead than a lease is long (LEASE_SECONDS) is of a clock that
-- was set back since: no lease, here as for the biller that takes it.
select holder, extract(epoch from expires_at)::float8 - extract(epoch from clock_timestamp())::float8 as seconds_left
from billing_leases where name = 'billing' and expires_at > clock_timestamp() and expires_at <= clock_timestamp() + interval '30 seconds';
