-- 012_billing_daemon_status.sql — one row per daemon process: its heartbeat and the facts of its last run.
--
-- The table is the whole conversation between daemon and application side, and operators query it by hand, so its
-- columns are a contract. A host that has the table keeps it, with its rows; an older one gets the columns it lacks.
-- Money depends on nothing in here: the table may be truncated at any time.
--
-- creates: billing_daemon_status

create table if not exists billing_daemon_status (
    id                 serial primary key,
    daemon_instance_id varchar(255) not null unique,   -- hostname-pid
    status             varchar(50) not null,           -- running, stopped or error
    last_run_at        timestamptz,
    last_run_success   boolean,
    instances_billed   integer default 0,
    total_amount       numeric(10, 2) default 0,
    total_hours        numeric(10, 2) default 0,
    error_message      text,
    started_at         timestamptz,
    heartbeat_at       timestamptz,
    metadata           jsonb default '{}',
    created_at         timestamptz default now(),
    updated_at         timestamptz default now()
);

alter table billing_daemon_status
    add column if not exists last_run_at timestamptz,
    add column if not exists last_run_success boolean,
    add column if not exists instances_billed integer default 0,
    add column if not exists total_amount numeric(10, 2) default 0,
    add column if not exists total_hours numeric(10, 2) default 0,
    add column if not exists error_message text,
    add column if not exists started_at timestamptz,
    add column if not exists heartbeat_at timestamptz,
    add column if not exists metadata jsonb default '{}',
    add column if not exists created_at timestamptz default now(),
    add column if not exists updated_at timestamptz default now();

create index if not exists idx_billing_daemon_status_heartbeat on billing_daemon_status (heartbeat_at);
create index if not exists idx_billing_daemon_status_instance on billing_daemon_status (daemon_instance_id);
