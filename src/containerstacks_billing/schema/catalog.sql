-- The schema as PostgreSQL holds it, one line per object, in an order that depends on no collation of the database.
-- Equal on every server version from 15 on. The order of columns and the record of migrations are left out.
with relations as (
    select oid, relname, reloptions, relkind from pg_class
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'p')
      and relname not in ('schema_migrations', 'containerstacks_billing_migrations')
), functions as (
    select p.*, format('%s(%s)', proname, pg_get_function_identity_arguments(p.oid)) as signature
    from pg_proc p
    where pronamespace = 'public'::regnamespace
      and not exists (select from pg_depend where objid = p.oid and classid = 'pg_proc'::regclass and deptype = 'e')
), lines (line) as (
    select format('table %s%s', relname, ' with ' || array_to_string(reloptions, ', ')) from relations
    union all
    select format('column %s.%s %s%s%s', r.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        case when a.attnotnull then ' not null' end,
        case when a.attidentity <> '' then ' generated as identity' else ' default ' || pg_get_expr(d.adbin, d.adrelid) end)
    from relations r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
    union all
    select format('constraint %s on %s: %s', c.conname, r.relname, pg_get_constraintdef(c.oid))
    from relations r join pg_constraint c on c.conrelid = r.oid and c.contype not in ('n', 't')
    union all
    select format('index %s: %s%s', i.indexrelid::regclass, pg_get_indexdef(i.indexrelid),
        case when not i.indisvalid then ' INVALID' end)
    from relations r join pg_index i on i.indrelid = r.oid
    union all
    select format('trigger %s on %s: %s enabled %s', t.tgname, r.relname, pg_get_triggerdef(t.oid), t.tgenabled)
    from relations r join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
    union all
    select format('type %s (%s)', t.typname,
        (select string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum)
         from pg_attribute a where a.attrelid = t.typrelid and not a.attisdropped))
    from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
    where t.typnamespace = 'public'::regnamespace
    union all
    select format('function %s body %s', signature, md5(coalesce(nullif(prosrc, ''), pg_get_function_sqlbody(oid)))) from functions
    union all
    select format('function %s returns %s language %s %s%s%s rows %s%s', signature, pg_get_function_result(oid),
        (select lanname from pg_language where pg_language.oid = prolang),
        case provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
        case proparallel when 's' then ' parallel safe' end, case when prosecdef then ' security definer' end, prorows,
        ' set ' || array_to_string(proconfig, ', set '))
    from functions
    union all
    select format('function %s may be called by its owner alone', signature)
    from functions
    where not exists (select from aclexplode(coalesce(proacl, acldefault('f', proowner))) where grantee = 0)
    union all
    select format('comment on %s: %s', case when d.objsubid = 0 then 'table ' || r.relname else 'column ' || r.relname || '.' || a.attname end,
        d.description)
    from relations r
    join pg_description d on d.classoid = 'pg_class'::regclass and d.objoid = r.oid
    left join pg_attribute a on a.attrelid = r.oid and a.attnum = d.objsubid and d.objsubid > 0
    union all
    select format('comment on function %s: %s', f.signature, d.description)
    from functions f join pg_description d on d.classoid = 'pg_proc'::regclass and d.objoid = f.oid
)
select regexp_replace(line, '\s+', ' ', 'g') as line from lines order by line collate "C";
