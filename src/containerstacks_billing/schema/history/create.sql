-- The first four columns are those of the host's own migration runner, whichever of the two programs comes first; the
-- other two are ours and null in the host's rows.
create table if not exists {table} (
    filename          text primary key,
    checksum          text not null,
    applied_at        timestamptz not null default now(),
    execution_time_ms integer
);
alter table {table}
    add column if not exists execution_time_ms integer,
    add column if not exists version integer,
    add column if not exists name text;
create unique index if not exists {index} on {table} (version);
comment on column {table}.version is 'number of a migration of containerstacks-billing; null: a migration of the host application';
