-- Statements of `doctor --report`: facts about the server that explain slow runs.

-- name: report_tables
-- Size, dead rows and age of statistics of every table of the schema public.
select c.relname as table, s.n_live_tup as rows, s.n_dead_tup as dead_rows, pg_total_relation_size(c.oid) as bytes,
    greatest(s.last_analyze, s.last_autoanalyze)::text as analyzed_at,
    greatest(s.last_vacuum, s.last_autovacuum)::text as vacuumed_at
from pg_class c
join pg_stat_user_tables s on s.relid = c.oid
where c.relnamespace = 'public'::regnamespace
order by bytes desc, c.relname;

-- name: report_settings
-- Settings of the server that are not its defaults and that a plan or a lock depends on.
select name, setting, unit, source
from pg_settings
where source not in ('default', 'override')
  and category ~ '^(Query Tuning|Resource Usage|Autovacuum|Lock Management|Client Connection Defaults / (Statement|Locale)|Write-Ahead Log / Settings)'
order by name;

-- name: report_waiting
-- Sessions that wait for a lock now, and for which session; no text of a statement, which might hold a value.
select pid, application_name, wait_event_type, wait_event, pg_blocking_pids(pid) as blocked_by,
    xact_start::text as transaction_since
from pg_stat_activity
where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0
order by pid;
