-- Orders that adjust charges: reversals of a run or of a span, credits for an outage, and what an audit of the host's past pays
-- back. Price corrections and orders share billing_adjustments: each row there belongs to one of them.
--
-- An order is written down once and posted range by range; given again, it posts what is missing. Undoing one is an order of its
-- own, with mode 'undo'. Hours stay charged whatever an order does: the difference moves, not the watermark.
-- locks: billing_adjustments and billing_events for an instant, to replace constraints

create table if not exists billing_adjustment_orders (
    id              bigint generated always as identity primary key,
    kind            text        not null
        constraint billing_adjustment_orders_known_kind check (kind in ('reversal', 'credit', 'audit')),
    mode            text        not null
        constraint billing_adjustment_orders_known_mode check (mode in ('waive', 'rerate', 'credit', 'audit', 'undo')),
    scope           jsonb       not null,
    starts_from     timestamptz not null,
    starts_until    timestamptz not null,
    undoes          bigint
        constraint billing_adjustment_orders_undone_once unique,
    decided_at      timestamptz not null,
    decided_by      text        not null,
    reason          text        not null,
    last_posted_at  timestamptz,
    unposted_charges bigint,
    unposted_amount numeric,
    constraint billing_adjustment_orders_undo check ((mode = 'undo') = (undoes is not null))
);
comment on table billing_adjustment_orders is 'Reversals, credits and repayments of audits: what was decided, by whom and why; what each moved stands in billing_adjustments';
comment on column billing_adjustment_orders.scope is 'which charges it is about, as it was asked for; the same scope and mode given again go on with the same order';
comment on column billing_adjustment_orders.starts_from is 'no charge that it is about starts before';
comment on column billing_adjustment_orders.unposted_charges is
    'how many charges wallets could not bear the difference of, when it was last given; null: it was not finished yet';
create index if not exists billing_adjustment_orders_by_time on billing_adjustment_orders (decided_at, id);

alter table billing_adjustments
    add column if not exists order_id bigint,
    alter column correction_id drop not null,
    alter column charge_id drop not null,
    alter column instance_id drop not null,
    alter column hours_from drop not null,
    alter column hours_until drop not null,
    alter column old_rate drop not null,
    alter column new_rate drop not null;
alter table billing_adjustments drop constraint if exists billing_adjustments_once;
alter table billing_adjustments add constraint billing_adjustments_once
    unique nulls not distinct (organization_id, charge_id, correction_id, order_id, hours_from);
alter table billing_adjustments drop constraint if exists billing_adjustments_one_cause;
alter table billing_adjustments add constraint billing_adjustments_one_cause
    check ((correction_id is null) <> (order_id is null));
alter table billing_adjustments drop constraint if exists billing_adjustments_complete;
alter table billing_adjustments add constraint billing_adjustments_complete
    check (num_nulls(charge_id, instance_id, hours_from, hours_until, old_rate, new_rate) = 0
        or num_nonnulls(charge_id, instance_id, hours_from, hours_until, old_rate, new_rate) = 0 and order_id is not null);
create index if not exists billing_adjustments_of_order on billing_adjustments (order_id, organization_id)
    where order_id is not null;
comment on table billing_adjustments is 'The exact differences that price corrections and orders made to billed charges; positive: the customer pays more';
comment on column billing_adjustments.order_id is 'the reversal, credit or audit that made it; null: a price correction';
comment on column billing_adjustments.charge_id is 'null: an audit pays back what the host took, which no charge of ours says';

alter table billing_events drop constraint if exists billing_events_known_kind;
alter table billing_events add constraint billing_events_known_kind
    check (kind in ('runway_72h', 'runway_24h', 'runway_3h', 'past_due', 'recovered', 'run_held', 'instance_held',
        'instance_quarantined', 'reversed', 'credited'));
