-- Balances below which no instance may be created: one for all plans, and one for each plan that wants another.
-- creates: billing_minimum_balances, which is empty until a minimum is set

create table if not exists billing_minimum_balances (
    plan_id uuid
        constraint billing_minimum_balances_one_per_plan unique nulls not distinct,
    amount  numeric(18, 2) not null
        constraint billing_minimum_balances_usable check (amount between 0 and 100000000),
    set_at  timestamptz    not null default billing_clock(),
    set_by  text           not null,
    reason  text           not null
);
comment on table billing_minimum_balances is 'What a wallet has to hold before an instance may be created';
comment on column billing_minimum_balances.plan_id is 'the plan; null: every plan without a minimum of its own';
