-- Results that are kept for pages and alerts.

-- name: may_keep_reports
-- Whether this role, on this server, may write to the table of a kind of result.
select not pg_is_in_recovery() and to_regclass(%(table)s) is not null
    and has_table_privilege(to_regclass(%(table)s)::oid, 'insert')
    and has_table_privilege(to_regclass(%(table)s)::oid, 'delete');
