-- Issued statements: kept as they were given to the customer, once for each organization, month and currency.

-- name: issued_statements
-- What was issued for a range of organizations.
select organization_id, number, issued_at, sha256, time_zone, document
from billing_statements
where organization_id between %(first_organization)s and %(last_organization)s
  and month = %(month)s and currency = %(currency)s
order by organization_id;

-- name: hold_statement_numbers
-- Wait for another process that issues, so that numbers have no gaps; ends with the transaction.
select pg_advisory_xact_lock(hashtextextended('billing_statements', 0));

-- name: issue_statement
-- Keep a statement under the next number; no row where one was issued before.
insert into billing_statements (number, organization_id, month, time_zone, currency, sha256, document, issued_by)
select coalesce(max(number), 0) + 1, %(organization)s, %(month)s, %(time_zone)s, %(currency)s, %(sha256)s, %(document)s,
    %(issued_by)s
from billing_statements
having not exists (
    select from billing_statements
    where organization_id = %(organization)s and month = %(month)s and currency = %(currency)s)
returning number, issued_at;
