-- Results of verify, kept so that pages and alerts know when the books were last proven.

-- name: insert_verification
-- Keep a result.
insert into billing_verifications (read_at, discrepancies, document, verified_by)
values (%(read_at)s, %(discrepancies)s, %(document)s::jsonb, %(verified_by)s);

-- name: remove_old_verifications
-- Keep the newest results.
delete from billing_verifications where id <= (select max(id) from billing_verifications) - %(kept)s::bigint;

-- name: last_verification
-- The last result.
select read_at, finished_at, discrepancies, document, left(verified_by, 255) as verified_by
from billing_verifications order by id desc limit 1;
