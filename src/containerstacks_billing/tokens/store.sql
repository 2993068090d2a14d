-- Tokens of the application side. The hash is computed by the caller; the text of a token never reaches the database.

-- name: create_token
-- Keep the hash of a new token; no row when a token of that name is in use.
insert into billing_tokens (name, token_hash, created_at, created_by, expires_at, scopes)
values (%(name)s, %(token_hash)s, billing_clock(), %(created_by)s,
    billing_clock() + %(valid_days)s::float8 * interval '1 day', %(scopes)s::text[])
on conflict (name) where revoked_at is null do nothing
returning id, name, created_at, created_by, expires_at, revoked_at, last_used_at, true as usable, scopes;

-- name: list_tokens
-- Every token that was ever made, the newest first.
select id, name, created_at, created_by, expires_at, revoked_at, last_used_at,
    revoked_at is null and coalesce(expires_at > billing_clock(), true) as usable, scopes
from billing_tokens
order by id desc
limit 1000;

-- name: revoke_token
-- End a token now, by its name or its number.
update billing_tokens set revoked_at = billing_clock()
where revoked_at is null and (name = %(which)s or id::text = %(which)s)
returning id, name, created_at, created_by, expires_at, revoked_at, last_used_at, false as usable, scopes;

-- name: find_token
-- The usable token of this hash, and whether its last use is worth noting again: once a minute is enough.
select id, name, token_hash,
    coalesce(last_used_at < billing_clock() - interval '1 minute', true) as note_use, scopes
from billing_tokens
where token_hash = %(token_hash)s and revoked_at is null and coalesce(expires_at > billing_clock(), true);

-- name: note_token_use
-- Record the use of a token, at most once a minute.
update billing_tokens set last_used_at = billing_clock()
where id = %(id)s and coalesce(last_used_at < billing_clock() - interval '1 minute', true);

-- name: role_of_user
-- The role of a user of the host application, now: a token outlives a demotion, this does not.
select coalesce(role, 'user') from users where id = %(user_id)s;
