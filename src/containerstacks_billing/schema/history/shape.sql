-- Which tables of migrations there are, and the columns of the one whose name other programs use too.
select to_regclass('containerstacks_billing_migrations') is not null as has_own,
       (select array_agg(attname::text order by attnum) from pg_attribute
         where attrelid = to_regclass('schema_migrations') and attnum > 0 and not attisdropped) as shared_columns,
       current_schema() as schema_name,
       current_setting('server_version_num')::integer as server_version;
