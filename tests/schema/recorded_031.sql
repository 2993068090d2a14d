-- A database that the twenty migrations before the first release made from an empty one (001, 012 to 021, 023 to 031), as pg_dump wrote
-- it: what `migrate` must be able to go on from. Bodies of functions are left out, because code/ replaces them.
set check_function_bodies = off;
CREATE TYPE billing_stretch AS (
    plan_id text,
    status text,
    backups boolean,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    closed_at timestamp with time zone,
    reason text
);
CREATE FUNCTION billing_adapt_to_host() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_admit(admitted name, reading boolean DEFAULT false) RETURNS SETOF text
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_amount(hourly_rate numeric, started_at timestamp with time zone, ended_at timestamp with time zone) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_batch_uuid(batch_key text, hash bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_begin_metering() RETURNS trigger
    LANGUAGE plpgsql
    AS '';
CREATE FUNCTION billing_begin_metering_late() RETURNS trigger
    LANGUAGE plpgsql
    AS '';
CREATE FUNCTION billing_begin_of_price(plan uuid, at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_clock() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    RETURN clock_timestamp();
CREATE FUNCTION billing_close_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_closed_stretches() RETURNS TABLE(id bigint, organization_id uuid, instance_id uuid, label text, plan_id text, status text, backups boolean, started_at timestamp with time zone, ended_at timestamp with time zone, charge_until timestamp with time zone, closed_at timestamp with time zone, reason text, rated_from timestamp with time zone, outcome text, run_id bigint)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_date_price() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_due_stretches(stretches billing_stretch[], until timestamp with time zone, every_status boolean, billable_statuses text[]) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE TABLE vps_instances (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    organization_id uuid NOT NULL,
    plan_id character varying(255) NOT NULL,
    provider_instance_id character varying(255) NOT NULL,
    label character varying(255) NOT NULL,
    status character varying(50) DEFAULT 'provisioning'::character varying,
    ip_address inet,
    configuration jsonb DEFAULT '{}'::jsonb,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    last_billed_at timestamp with time zone,
    rated_from timestamp with time zone,
    rated_until timestamp with time zone,
    closed_stretches billing_stretch[]
)
WITH (fillfactor='70');
COMMENT ON COLUMN vps_instances.rated_from IS 'the watermark at adoption or insertion: billing answers for every hour since';
COMMENT ON COLUMN vps_instances.rated_until IS 'the watermark as billing last wrote it, beside last_billed_at, which the host may write';
COMMENT ON COLUMN vps_instances.closed_stretches IS 'stretches that a change has closed since the last run, oldest first, until a run files them in billing_usage_segments';
CREATE FUNCTION billing_ends_stretch(before vps_instances, after vps_instances) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_has_backups(instance vps_instances) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_hold_organizations(first uuid, last uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_instant_text(at timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_is_edit(before vps_instances, after vps_instances) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS '';
CREATE TABLE vps_plans (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(255) NOT NULL,
    provider_plan_id character varying(255) NOT NULL,
    provider_id uuid,
    base_price numeric(10,2) DEFAULT 0.00 NOT NULL,
    markup_price numeric(10,2) DEFAULT 0.00 NOT NULL,
    specifications jsonb DEFAULT '{}'::jsonb NOT NULL,
    active boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now()
);
CREATE FUNCTION billing_is_price_recorded(plan vps_plans, at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_judge_segment(status text, started_at timestamp with time zone, ended_at timestamp with time zone) RETURNS TABLE(charge_until timestamp with time zone, outcome text)
    LANGUAGE sql STABLE ROWS 1 PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_keep_rated_until() RETURNS trigger
    LANGUAGE plpgsql
    AS '';
CREATE FUNCTION billing_keep_stretches() RETURNS trigger
    LANGUAGE plpgsql
    AS '';
CREATE FUNCTION billing_latest_as_of() RETURNS timestamp with time zone
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE TABLE billing_policies (
    id bigint NOT NULL,
    billable_statuses text[] NOT NULL,
    partial_hour text NOT NULL,
    valid_from timestamp with time zone NOT NULL,
    valid_to timestamp with time zone DEFAULT 'infinity'::timestamp with time zone NOT NULL,
    settled boolean DEFAULT true NOT NULL,
    CONSTRAINT billing_policies_forward CHECK ((valid_from < valid_to)),
    CONSTRAINT billing_policies_known_partial_hour CHECK ((partial_hour = ANY (ARRAY['prorate'::text, 'full'::text, 'free'::text])))
);
COMMENT ON COLUMN billing_policies.settled IS 'false while the stretches that the previous policy left open are still being closed';
CREATE FUNCTION billing_metered_status(status text, policy billing_policies) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_metering_failed(error text, segment text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_money_text(amount numeric) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_move_watermark() RETURNS trigger
    LANGUAGE plpgsql
    AS '';
CREATE FUNCTION billing_notify_events() RETURNS trigger
    LANGUAGE plpgsql
    AS '';
CREATE FUNCTION billing_open_wallet() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_price_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_read_policies() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_record_price(plan vps_plans, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_rights(reading boolean DEFAULT false) RETURNS TABLE(object name, rights text[])
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS '';
CREATE FUNCTION billing_runway_level(hours_left double precision) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_segments_of(instance vps_instances, stretches billing_stretch[]) RETURNS TABLE(organization_id uuid, instance_id uuid, label text, plan_id text, status text, backups boolean, started_at timestamp with time zone, ended_at timestamp with time zone, charge_until timestamp with time zone, closed_at timestamp with time zone, reason text, rated_from timestamp with time zone, outcome text)
    LANGUAGE sql STABLE ROWS 1 PARALLEL SAFE
    AS '';
CREATE FUNCTION billing_spill_stretches(instance vps_instances, stretches billing_stretch[]) RETURNS billing_stretch[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_stretch_end(status text, started_at timestamp with time zone, at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE FUNCTION billing_sync_prices(at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS '';
CREATE TABLE plan_price_versions (
    id bigint NOT NULL,
    plan_id uuid NOT NULL,
    valid_from timestamp with time zone NOT NULL,
    valid_to timestamp with time zone DEFAULT 'infinity'::timestamp with time zone NOT NULL,
    base_price numeric,
    markup_price numeric,
    backup_price_hourly numeric,
    backup_upcharge_hourly numeric,
    announced boolean DEFAULT false NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    recorded_by text DEFAULT SESSION_USER NOT NULL,
    reason text,
    begins_at_commit boolean DEFAULT true NOT NULL,
    CONSTRAINT plan_price_versions_forward CHECK ((valid_from < valid_to))
);
COMMENT ON TABLE plan_price_versions IS 'What a plan costs per month, from when until when; no foreign key: a deleted plan keeps its prices';
COMMENT ON COLUMN plan_price_versions.announced IS 'entered ahead of its time; vps_plans does not show it yet';
COMMENT ON COLUMN plan_price_versions.begins_at_commit IS 'false: somebody named the instant from which it holds';
CREATE FUNCTION billing_usable_price(price plan_price_versions) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS '';
CREATE TABLE billing_adjustments (
    id bigint NOT NULL,
    correction_id bigint NOT NULL,
    posting uuid NOT NULL,
    charge_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    instance_id uuid NOT NULL,
    hours_from timestamp with time zone NOT NULL,
    hours_until timestamp with time zone NOT NULL,
    old_rate numeric NOT NULL,
    new_rate numeric NOT NULL,
    amount numeric NOT NULL,
    payment_transaction_id uuid,
    created_at timestamp with time zone NOT NULL,
    decided_by text NOT NULL,
    reason text,
    CONSTRAINT billing_adjustments_exact CHECK (((amount > ('-10000000000'::bigint)::numeric) AND (amount < ('10000000000'::bigint)::numeric) AND (scale(amount) <= 8))),
    CONSTRAINT billing_adjustments_forward CHECK ((hours_from < hours_until))
);
COMMENT ON TABLE billing_adjustments IS 'The exact differences that price corrections made to billed charges; positive: the customer pays more';
COMMENT ON COLUMN billing_adjustments.posting IS 'the transaction that posted it: one ledger entry at most per wallet and posting';
COMMENT ON COLUMN billing_adjustments.payment_transaction_id IS 'null where the wallet''s whole cents did not change';
ALTER TABLE billing_adjustments ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_adjustments_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE billing_daemon_status (
    id integer NOT NULL,
    daemon_instance_id character varying(255) NOT NULL,
    status character varying(50) NOT NULL,
    last_run_at timestamp with time zone,
    last_run_success boolean,
    instances_billed integer DEFAULT 0,
    total_amount numeric(10,2) DEFAULT 0,
    total_hours numeric(10,2) DEFAULT 0,
    error_message text,
    started_at timestamp with time zone,
    heartbeat_at timestamp with time zone,
    metadata jsonb DEFAULT '{}'::jsonb,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now()
);
CREATE SEQUENCE billing_daemon_status_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE billing_daemon_status_id_seq OWNED BY billing_daemon_status.id;
CREATE TABLE billing_decisions (
    id bigint NOT NULL,
    organization_id uuid NOT NULL,
    instance_id uuid NOT NULL,
    segment_id bigint DEFAULT 0 NOT NULL,
    decision text NOT NULL,
    charge_until timestamp with time zone,
    waived_from timestamp with time zone,
    waived_to timestamp with time zone,
    decided_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    decided_by text NOT NULL,
    reason text NOT NULL,
    CONSTRAINT billing_decisions_known_decision CHECK ((decision = ANY (ARRAY['charge'::text, 'cap'::text, 'waive'::text])))
);
ALTER TABLE billing_decisions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_decisions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE billing_events (
    id bigint NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    kind text NOT NULL,
    organization_id uuid,
    wallet_id uuid,
    run_id bigint,
    occurred_at timestamp with time zone NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    next_attempt_at timestamp with time zone DEFAULT billing_clock() NOT NULL,
    delivered_at timestamp with time zone,
    dead_at timestamp with time zone,
    last_error text,
    CONSTRAINT billing_events_delivered_or_dead CHECK (((delivered_at IS NULL) OR (dead_at IS NULL))),
    CONSTRAINT billing_events_known_kind CHECK ((kind = ANY (ARRAY['runway_72h'::text, 'runway_24h'::text, 'runway_3h'::text, 'past_due'::text, 'recovered'::text, 'run_held'::text, 'instance_held'::text, 'instance_quarantined'::text])))
);
COMMENT ON TABLE billing_events IS 'What the host is told, once each; no foreign keys: an event outlives what it is about';
COMMENT ON COLUMN billing_events.event_id IS 'the same in every attempt to deliver it: the receiver recognises a repetition by it';
COMMENT ON COLUMN billing_events.next_attempt_at IS 'when it may be sent; a sender moves it ahead before it sends, and so claims it';
COMMENT ON COLUMN billing_events.dead_at IS 'given up: too many attempts, refused for good, or too old when a receiver was configured';
ALTER TABLE billing_events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE billing_leases (
    name text NOT NULL,
    holder text,
    fencing_token bigint DEFAULT 0 NOT NULL,
    nonce uuid DEFAULT gen_random_uuid() NOT NULL,
    acquired_at timestamp with time zone,
    renewed_at timestamp with time zone,
    expires_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
);
CREATE TABLE billing_metering_failures (
    id bigint NOT NULL,
    failed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    error text NOT NULL,
    segment text NOT NULL
);
ALTER TABLE billing_metering_failures ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_metering_failures_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE billing_policies ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_policies_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE billing_price_corrections (
    id bigint NOT NULL,
    plan_id uuid NOT NULL,
    corrected_from timestamp with time zone NOT NULL,
    corrected_until timestamp with time zone NOT NULL,
    old_base_price numeric,
    old_markup_price numeric,
    new_base_price numeric NOT NULL,
    new_markup_price numeric NOT NULL,
    backup_hourly numeric DEFAULT 0 NOT NULL,
    decided_at timestamp with time zone NOT NULL,
    decided_by text NOT NULL,
    reason text,
    last_posted_at timestamp with time zone,
    unposted_charges bigint,
    unposted_amount numeric,
    CONSTRAINT billing_price_corrections_forward CHECK ((corrected_from < corrected_until))
);
COMMENT ON COLUMN billing_price_corrections.corrected_until IS 'the begin of the next recorded version, at most decided_at: later hours were rated at the new price from the start';
COMMENT ON COLUMN billing_price_corrections.unposted_charges IS 'how many charges wallets could not pay the difference of, when it was last given; null: it was not finished yet';
ALTER TABLE billing_price_corrections ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_price_corrections_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE billing_quarantine (
    organization_id uuid NOT NULL,
    instance_id uuid NOT NULL,
    segment_id bigint DEFAULT 0 NOT NULL,
    label text,
    reason text NOT NULL,
    detail text NOT NULL,
    due_hours numeric,
    first_seen_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    run_id bigint NOT NULL
);
COMMENT ON TABLE billing_quarantine IS 'Instances set aside, and held ones (reason ''held''); segment_id 0 is the open stretch';
CREATE TABLE billing_runs (
    id bigint NOT NULL,
    trigger text NOT NULL,
    holder text NOT NULL,
    fencing_token bigint NOT NULL,
    organization_id uuid,
    as_of timestamp with time zone NOT NULL,
    host_clock timestamp with time zone NOT NULL,
    started_at timestamp with time zone DEFAULT billing_clock() NOT NULL,
    finished_at timestamp with time zone,
    outcome text,
    error_message text,
    hours_per_month integer NOT NULL,
    fleet_instances bigint DEFAULT 0 NOT NULL,
    fleet_hourly_rate numeric DEFAULT 0 NOT NULL,
    batches_planned integer DEFAULT 0 NOT NULL,
    instances_planned bigint DEFAULT 0 NOT NULL,
    batches integer DEFAULT 0 NOT NULL,
    instances_billed bigint DEFAULT 0 NOT NULL,
    hours numeric DEFAULT 0 NOT NULL,
    amount numeric DEFAULT 0 NOT NULL,
    past_due_instances bigint DEFAULT 0 NOT NULL,
    quarantined_instances bigint DEFAULT 0 NOT NULL,
    held_instances bigint DEFAULT 0 NOT NULL,
    released_at timestamp with time zone,
    released_by text,
    release_reason text,
    fleet_rated_instances bigint DEFAULT 0 NOT NULL,
    fleet_rates jsonb DEFAULT '{}'::jsonb NOT NULL,
    held_by bigint,
    CONSTRAINT billing_runs_known_outcome CHECK ((outcome = ANY (ARRAY['completed'::text, 'interrupted'::text, 'failed'::text, 'held'::text])))
)
WITH (fillfactor='50');
COMMENT ON COLUMN billing_runs.fleet_hourly_rate IS 'what all billable instances cost per hour at as_of; with fleet_instances it is what the brake compares';
COMMENT ON COLUMN billing_runs.amount IS 'exact sum of the charges that this run billed';
COMMENT ON COLUMN billing_runs.fleet_rated_instances IS 'billable instances whose plan had a usable price at as_of';
COMMENT ON COLUMN billing_runs.fleet_rates IS 'hourly rate of each plan when it was last in use with a usable price, by the name that instances know it by';
COMMENT ON COLUMN billing_runs.held_by IS 'the run whose hold bound this one; null: it was held for what it saw itself';
ALTER TABLE billing_runs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE billing_runways (
    organization_id uuid NOT NULL,
    wallet_id uuid NOT NULL,
    burn_per_hour numeric DEFAULT 0 NOT NULL,
    empties_at timestamp with time zone,
    level smallint,
    past_due_since timestamp with time zone,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT billing_runways_known_level CHECK ((level = ANY (ARRAY[72, 24, 3])))
)
WITH (fillfactor='70');
COMMENT ON COLUMN billing_runways.burn_per_hour IS 'what the billable instances of the organization cost per hour at the prices in force';
COMMENT ON COLUMN billing_runways.empties_at IS 'when the wallet is empty at this burn; null: it burns nothing, or lasts for a century';
COMMENT ON COLUMN billing_runways.level IS 'the lowest of 72, 24 and 3 hours that the runway has come down to; null: none';
COMMENT ON COLUMN billing_runways.past_due_since IS 'the mark of the wallet as it was last announced';
CREATE TABLE billing_set_aside_counts (
    reason text NOT NULL,
    instances bigint NOT NULL
);
COMMENT ON TABLE billing_set_aside_counts IS 'How many instances billing_quarantine holds, by reason; rewritten by whoever changes that';
CREATE TABLE billing_tokens (
    id bigint NOT NULL,
    name text NOT NULL,
    token_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT billing_clock() NOT NULL,
    created_by text NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT billing_tokens_sha_256 CHECK ((octet_length(token_hash) = 32)),
    CONSTRAINT billing_tokens_short_name CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100)))
);
COMMENT ON TABLE billing_tokens IS 'Admin tokens of the application side; only their SHA-256 is kept';
ALTER TABLE billing_tokens ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_tokens_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE billing_usage_segments (
    id bigint NOT NULL,
    organization_id uuid NOT NULL,
    instance_id uuid NOT NULL,
    label text,
    plan_id text,
    status text,
    backups boolean DEFAULT false NOT NULL,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    charge_until timestamp with time zone NOT NULL,
    closed_at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    rated_from timestamp with time zone,
    outcome text,
    run_id bigint,
    CONSTRAINT billing_usage_segments_forward CHECK (((started_at <= charge_until) AND (started_at <= ended_at))),
    CONSTRAINT billing_usage_segments_known_outcome CHECK ((outcome = ANY (ARRAY['charged'::text, 'not billable'::text, 'free'::text, 'waived'::text, 'damaged'::text]))),
    CONSTRAINT billing_usage_segments_known_reason CHECK ((reason = ANY (ARRAY['status'::text, 'plan'::text, 'organization'::text, 'backups'::text, 'deleted'::text, 'policy'::text])))
);
COMMENT ON COLUMN billing_usage_segments.charge_until IS 'the end of what is to be charged: before ended_at under PARTIAL_HOUR=free, otherwise equal to it';
COMMENT ON COLUMN billing_usage_segments.outcome IS 'null: still to be charged';
ALTER TABLE billing_usage_segments ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing_usage_segments_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE organizations (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(255) NOT NULL,
    slug character varying(255) NOT NULL,
    owner_id uuid NOT NULL,
    settings jsonb DEFAULT '{}'::jsonb,
    website character varying(500),
    address text,
    tax_id character varying(100),
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now()
);
CREATE TABLE payment_transactions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    organization_id uuid NOT NULL,
    amount numeric(10,2) NOT NULL,
    currency character varying(3) DEFAULT 'USD'::character varying,
    payment_method character varying(50) NOT NULL,
    payment_provider character varying(50) NOT NULL,
    provider_transaction_id character varying(255),
    status character varying(50) DEFAULT 'pending'::character varying,
    description text,
    metadata jsonb DEFAULT '{}'::jsonb,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    CONSTRAINT payment_transactions_status_check CHECK (status in ('pending', 'completed', 'failed', 'refunded'))
);
ALTER TABLE plan_price_versions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME plan_price_versions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE schema_migrations (
    filename text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    execution_time_ms integer,
    version integer,
    name text
);
COMMENT ON COLUMN schema_migrations.version IS 'number of a migration of containerstacks-billing; null: a migration of the host application';
CREATE TABLE users (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    email character varying(255) NOT NULL,
    password_hash character varying(255) NOT NULL,
    name character varying(255) NOT NULL,
    role character varying(50) DEFAULT 'user'::character varying,
    phone character varying(50),
    timezone character varying(100),
    preferences jsonb DEFAULT '{}'::jsonb,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    CONSTRAINT users_role_check CHECK (role in ('admin', 'user'))
);
CREATE TABLE vps_billing_cycles (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    vps_instance_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    billing_period_start timestamp with time zone NOT NULL,
    billing_period_end timestamp with time zone NOT NULL,
    hourly_rate numeric NOT NULL,
    total_amount numeric NOT NULL,
    status character varying(50) DEFAULT 'pending'::character varying,
    payment_transaction_id uuid,
    metadata jsonb DEFAULT '{}'::jsonb,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    run_id bigint,
    plan_id uuid,
    segment_id bigint,
    grown_from timestamp with time zone,
    past_due_since timestamp with time zone,
    debt_batch integer,
    CONSTRAINT vps_billing_cycles_status_check CHECK (status in ('pending', 'billed', 'failed', 'refunded'))
);
COMMENT ON COLUMN vps_billing_cycles.run_id IS 'the billing run that wrote this charge; null: written by the host application';
COMMENT ON COLUMN vps_billing_cycles.plan_id IS 'the plan whose price the hourly rate is';
COMMENT ON COLUMN vps_billing_cycles.segment_id IS 'the usage segment that this charge closes; null: a running instance';
COMMENT ON COLUMN vps_billing_cycles.grown_from IS 'a past-due charge grows at its end; this is the end it grew from';
COMMENT ON COLUMN vps_billing_cycles.past_due_since IS 'when the wallet first could not pay this charge; kept after it was paid';
CREATE TABLE wallets (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    organization_id uuid NOT NULL,
    balance numeric(10,2) DEFAULT 0.00,
    currency character varying(3) DEFAULT 'USD'::character varying,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    billing_carry numeric(12,8) DEFAULT 0 NOT NULL,
    billing_opening numeric DEFAULT 0 NOT NULL,
    past_due_since timestamp with time zone,
    CONSTRAINT wallets_carry_below_a_cent CHECK (((billing_carry >= (0)::numeric) AND (billing_carry < 0.01)))
);
COMMENT ON COLUMN wallets.billing_carry IS 'billed but not yet debited, below one cent';
COMMENT ON COLUMN wallets.billing_opening IS 'what the balance was beyond the completed ledger entries when billing first saw it';
COMMENT ON COLUMN wallets.past_due_since IS 'since when this wallet has charges it could not pay; null: none';
ALTER TABLE ONLY billing_daemon_status ALTER COLUMN id SET DEFAULT nextval('billing_daemon_status_id_seq'::regclass);
INSERT INTO billing_leases VALUES ('billing', NULL, 0, '2fc5276b-f360-4974-bd8a-71e1a9308670', NULL, NULL, '-infinity');
INSERT INTO billing_policies OVERRIDING SYSTEM VALUE VALUES (1, '{running}', 'prorate', '-infinity', 'infinity', true);
INSERT INTO schema_migrations VALUES ('containerstacks-billing/001_containerstacks.sql', '77c5c4256bcca46443204c10665e893046dd6536159bdbeb1a399b5008328d72', '2026-12-01 01:58:13.063524+00', 18, 1, 'containerstacks');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/012_billing_daemon_status.sql', '4bef40d3da52e0c6049e4d540297fb41f35a9df922a3880d9cf1b3a936b54eda', '2026-12-01 01:58:13.150494+00', 2, 12, 'billing_daemon_status');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/013_adopt_containerstacks.sql', '0c3ef4ff96742b409dcf9859858479d8e857ee811f7e33c4ffd124392c620b40', '2026-12-01 01:58:13.207888+00', 54, 13, 'adopt_containerstacks');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/014_runs_and_leases.sql', '66b9566b1960b3a7ceac0b22b8747208f9759b17265999cd9bc642f8abb7974f', '2026-12-01 01:58:13.221051+00', 6, 14, 'runs_and_leases');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/015_prices.sql', '1548503c74af5f964c379b4e3dd9e9b5d62bc5c8bf47d95eb4d524d44b19e1b9', '2026-12-01 01:58:13.233022+00', 5, 15, 'prices');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/016_metering.sql', '0a4eaa4c261bae29539b496133eb74b1dee306368dfd6d3a58784618b0b4df1b', '2026-12-01 01:58:13.243252+00', 7, 16, 'metering');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/017_quarantine_and_holds.sql', 'a72191000cefe81f73acea288de65a6059e0816e62e62a90c9b87532bfc00dc7', '2026-12-01 01:58:13.249502+00', 2, 17, 'quarantine_and_holds');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/018_charging.sql', '5a8d849faa6c22fbb7b90fdc02fba8ab964b9128a5b5d19e7a3cc8f6736fbe9a', '2026-12-01 01:58:13.25208+00', 1, 18, 'charging');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/019_events.sql', 'fb0cc29808811c6a0a6171cdb3d3b476d1b3dfc936cb79aa5a8a3817173735ec', '2026-12-01 01:58:13.265268+00', 4, 19, 'events');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/020_price_corrections.sql', 'c4aac80bbffd71dfb2aec4949b29538f585cb221a1003a608ee20a7ca7564309', '2026-12-01 01:58:13.27093+00', 3, 20, 'price_corrections');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/021_holds.sql', '6753fc3ba37f431bbe6f7c1eca799de0a33772a0fb41e4772348ee2127e4b4fb', '2026-12-01 01:58:13.275709+00', 1, 21, 'holds');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/023_tokens.sql', '7ad07da9e493cea32f06c5e8ac9fcb787463f57ea2cacdef20a98a4bb5cd0c31', '2026-12-01 01:58:13.303394+00', 25, 23, 'tokens');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/024_what_is_shown.sql', 'c1acb7989cec61e56fda07cf15ca6f738746f5254c1069a5b1c6709b47fca4ad', '2026-12-01 01:58:13.309415+00', 4, 24, 'what_is_shown');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/025_bulk_changes.sql', '779c9af6306b131ee239ef6ba50eee5b33208318a5eb036d1fdb4347c2da82ba', '2026-12-01 01:58:13.311561+00', 1, 25, 'bulk_changes');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/026_prices_and_clocks.sql', 'cafda2711c7484a95cde732baaf079f6efe95efde3112ef1344191f6ce57e785', '2026-12-01 01:58:13.315108+00', 1, 26, 'prices_and_clocks');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/027_kept_stretches.sql', '4fa0c177b2812ab33e5bb266b7c7ad98ba90d04a0acb9a68b43b2cf8b440a77e', '2026-12-01 01:58:13.318262+00', 2, 27, 'kept_stretches');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/028_least_privilege.sql', 'f7e78255a6e0d7c63ed6770c41e0f4ce047199dfd8e73d2a069e35bde751fc9e', '2026-12-01 01:58:13.321976+00', 1, 28, 'least_privilege');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/029_prices_one_at_a_time.sql', '1a8474c99ecb237bc486ed7779c3310d2db41719859bf6520ec67b7531956df6', '2026-12-01 01:58:13.327846+00', 1, 29, 'prices_one_at_a_time');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/030_believable_dates.sql', '6ef6add8abee065f803c45b563e3c162dddbe91ac3ee0c2896bbb72ae0e89ec8', '2026-12-01 01:58:13.3363+00', 2, 30, 'believable_dates');
INSERT INTO schema_migrations VALUES ('containerstacks-billing/031_hold_organizations.sql', '333a985b528e7988e9475013aaa67f16e5d9922789246e92019f4bb6018d9e7d', '2026-12-01 01:58:13.34089+00', 1, 31, 'hold_organizations');
ALTER TABLE ONLY billing_adjustments
    ADD CONSTRAINT billing_adjustments_once UNIQUE (organization_id, charge_id, correction_id);
ALTER TABLE ONLY billing_adjustments
    ADD CONSTRAINT billing_adjustments_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_daemon_status
    ADD CONSTRAINT billing_daemon_status_daemon_instance_id_key UNIQUE (daemon_instance_id);
ALTER TABLE ONLY billing_daemon_status
    ADD CONSTRAINT billing_daemon_status_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_decisions
    ADD CONSTRAINT billing_decisions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_events
    ADD CONSTRAINT billing_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_leases
    ADD CONSTRAINT billing_leases_fence UNIQUE (name, fencing_token, nonce);
ALTER TABLE ONLY billing_leases
    ADD CONSTRAINT billing_leases_pkey PRIMARY KEY (name);
ALTER TABLE ONLY billing_metering_failures
    ADD CONSTRAINT billing_metering_failures_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_policies
    ADD CONSTRAINT billing_policies_one_per_instant UNIQUE (valid_from);
ALTER TABLE ONLY billing_policies
    ADD CONSTRAINT billing_policies_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_price_corrections
    ADD CONSTRAINT billing_price_corrections_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_quarantine
    ADD CONSTRAINT billing_quarantine_pkey PRIMARY KEY (organization_id, instance_id, segment_id);
ALTER TABLE ONLY billing_runs
    ADD CONSTRAINT billing_runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_runways
    ADD CONSTRAINT billing_runways_pkey PRIMARY KEY (organization_id, wallet_id);
ALTER TABLE ONLY billing_set_aside_counts
    ADD CONSTRAINT billing_set_aside_counts_pkey PRIMARY KEY (reason);
ALTER TABLE ONLY billing_tokens
    ADD CONSTRAINT billing_tokens_one_per_hash UNIQUE (token_hash);
ALTER TABLE ONLY billing_tokens
    ADD CONSTRAINT billing_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY billing_usage_segments
    ADD CONSTRAINT billing_usage_segments_pkey PRIMARY KEY (id);
ALTER TABLE ONLY organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY organizations
    ADD CONSTRAINT organizations_slug_key UNIQUE (slug);
ALTER TABLE ONLY payment_transactions
    ADD CONSTRAINT payment_transactions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY plan_price_versions
    ADD CONSTRAINT plan_price_versions_one_per_instant UNIQUE (plan_id, valid_from);
ALTER TABLE ONLY plan_price_versions
    ADD CONSTRAINT plan_price_versions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (filename);
ALTER TABLE ONLY users
    ADD CONSTRAINT users_email_key UNIQUE (email);
ALTER TABLE ONLY users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
ALTER TABLE vps_billing_cycles
    ADD CONSTRAINT vps_billing_cycles_charge_is_exact CHECK (((run_id IS NULL) OR ((hourly_rate >= (0)::numeric) AND (hourly_rate < ('10000000000'::bigint)::numeric) AND (scale(hourly_rate) <= 8) AND (total_amount >= (0)::numeric) AND (total_amount < ('10000000000'::bigint)::numeric) AND (scale(total_amount) <= 8)))) NOT VALID;
ALTER TABLE vps_billing_cycles
    ADD CONSTRAINT vps_billing_cycles_charge_period_is_forward CHECK (((run_id IS NULL) OR (isfinite(billing_period_start) AND isfinite(billing_period_end) AND (billing_period_start < billing_period_end)))) NOT VALID;
ALTER TABLE ONLY vps_billing_cycles
    ADD CONSTRAINT vps_billing_cycles_pkey PRIMARY KEY (id);
ALTER TABLE ONLY vps_instances
    ADD CONSTRAINT vps_instances_pkey PRIMARY KEY (id);
ALTER TABLE ONLY vps_plans
    ADD CONSTRAINT vps_plans_pkey PRIMARY KEY (id);
ALTER TABLE ONLY wallets
    ADD CONSTRAINT wallets_pkey PRIMARY KEY (id);
CREATE INDEX billing_decisions_instance ON billing_decisions USING btree (organization_id, instance_id, charge_until);
CREATE INDEX billing_events_dead ON billing_events USING btree (id) WHERE (dead_at IS NOT NULL);
CREATE INDEX billing_events_occurred ON billing_events USING btree (occurred_at);
CREATE INDEX billing_events_of_organization ON billing_events USING btree (organization_id, id);
CREATE INDEX billing_events_waiting ON billing_events USING btree (next_attempt_at, id) WHERE ((delivered_at IS NULL) AND (dead_at IS NULL));
CREATE INDEX billing_price_corrections_plan ON billing_price_corrections USING btree (plan_id, corrected_from);
CREATE INDEX billing_quarantine_oldest ON billing_quarantine USING btree (first_seen_at, organization_id, instance_id, segment_id);
CREATE INDEX billing_runs_built_in ON billing_runs USING btree (id) WHERE (trigger = 'built-in'::text);
CREATE INDEX billing_runs_holds ON billing_runs USING btree (id DESC) WHERE ((outcome = 'held'::text) AND (held_by IS NULL));
CREATE INDEX billing_runs_open ON billing_runs USING btree (id) WHERE (outcome IS NULL);
CREATE INDEX billing_runs_outcome ON billing_runs USING btree (outcome, id DESC);
CREATE INDEX billing_runs_started ON billing_runs USING btree (started_at DESC);
CREATE INDEX billing_runways_ending ON billing_runways USING btree (empties_at, organization_id) WHERE ((empties_at IS NOT NULL) AND (past_due_since IS NULL));
CREATE INDEX billing_runways_owing ON billing_runways USING btree (empties_at, organization_id) WHERE ((empties_at IS NOT NULL) AND (past_due_since IS NOT NULL));
CREATE INDEX billing_runways_soonest ON billing_runways USING btree (empties_at) WHERE (empties_at IS NOT NULL);
CREATE UNIQUE INDEX billing_tokens_one_per_name ON billing_tokens USING btree (name) WHERE (revoked_at IS NULL);
CREATE INDEX billing_usage_segments_due ON billing_usage_segments USING btree (organization_id) WHERE (outcome IS NULL);
CREATE INDEX billing_usage_segments_instance ON billing_usage_segments USING btree (organization_id, instance_id, started_at);
CREATE INDEX idx_billing_daemon_status_heartbeat ON billing_daemon_status USING btree (heartbeat_at);
CREATE INDEX idx_billing_daemon_status_instance ON billing_daemon_status USING btree (daemon_instance_id);
CREATE INDEX idx_organizations_owner_id ON organizations USING btree (owner_id);
CREATE INDEX idx_payment_transactions_org_id ON payment_transactions USING btree (organization_id);
CREATE INDEX idx_vps_instances_org_id ON vps_instances USING btree (organization_id);
CREATE INDEX idx_wallets_org_id ON wallets USING btree (organization_id);
CREATE INDEX payment_transactions_debits_of_host ON payment_transactions USING btree (created_at) WHERE (((payment_method)::text = 'wallet_debit'::text) AND ((COALESCE(provider_transaction_id, ''::character varying))::text !~~ 'billing-%'::text));
CREATE UNIQUE INDEX schema_migrations_version ON schema_migrations USING btree (version);
CREATE INDEX vps_billing_cycles_former_debts ON vps_billing_cycles USING btree (run_id, organization_id) WHERE (past_due_since IS NOT NULL);
CREATE UNIQUE INDEX vps_billing_cycles_one_charge_per_hour ON vps_billing_cycles USING btree (organization_id, billing_period_start, vps_instance_id, (
CASE
    WHEN (run_id IS NULL) THEN id
    ELSE NULL::uuid
END)) NULLS NOT DISTINCT;
CREATE INDEX vps_billing_cycles_open_debts ON vps_billing_cycles USING btree (organization_id) WHERE (((status)::text = 'failed'::text) AND (run_id IS NOT NULL));
CREATE TRIGGER billing_begin_metering BEFORE INSERT ON vps_instances FOR EACH ROW EXECUTE FUNCTION billing_begin_metering();
CREATE TRIGGER billing_begin_metering_late BEFORE UPDATE ON vps_instances FOR EACH ROW WHEN (((old.rated_from IS NULL) AND (old.rated_until IS NULL) AND (new.rated_from IS NULL))) EXECUTE FUNCTION billing_begin_metering_late();
CREATE TRIGGER billing_close_deleted AFTER DELETE ON vps_instances REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION billing_close_deleted();
CREATE CONSTRAINT TRIGGER billing_date_price AFTER INSERT ON plan_price_versions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.begins_at_commit AND (NOT new.announced) AND isfinite(new.valid_from))) EXECUTE FUNCTION billing_date_price();
CREATE TRIGGER billing_keep_rated_until BEFORE UPDATE ON vps_instances FOR EACH ROW WHEN (((new.rated_until IS NULL) AND (old.rated_until IS NOT NULL))) EXECUTE FUNCTION billing_keep_rated_until();
CREATE TRIGGER billing_keep_stretches BEFORE UPDATE ON vps_instances FOR EACH ROW WHEN ((new.closed_stretches IS DISTINCT FROM old.closed_stretches)) EXECUTE FUNCTION billing_keep_stretches();
CREATE TRIGGER billing_move_watermark BEFORE UPDATE ON vps_instances FOR EACH ROW WHEN (billing_ends_stretch(old.*, new.*)) EXECUTE FUNCTION billing_move_watermark();
CREATE TRIGGER billing_notify_events AFTER INSERT ON billing_events REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION billing_notify_events();
CREATE TRIGGER billing_open_wallet BEFORE INSERT ON wallets FOR EACH ROW EXECUTE FUNCTION billing_open_wallet();
CREATE TRIGGER billing_price_changed AFTER INSERT OR UPDATE ON vps_plans FOR EACH ROW EXECUTE FUNCTION billing_price_changed();
CREATE TRIGGER billing_read_policies BEFORE UPDATE ON vps_instances FOR EACH STATEMENT EXECUTE FUNCTION billing_read_policies();
ALTER TABLE ONLY organizations
    ADD CONSTRAINT organizations_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES users(id) ON DELETE CASCADE;
ALTER TABLE ONLY payment_transactions
    ADD CONSTRAINT payment_transactions_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE CASCADE;
ALTER TABLE ONLY vps_instances
    ADD CONSTRAINT vps_instances_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE CASCADE;
ALTER TABLE ONLY wallets
    ADD CONSTRAINT wallets_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE CASCADE;
REVOKE ALL ON FUNCTION billing_admit(admitted name, reading boolean) FROM PUBLIC;
