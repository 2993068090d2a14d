-- Statements of account that were issued: the document as it was given to the customer, and its SHA-256.
--
-- A statement can be computed anew at any time, and a preview is. What was issued is kept as it was, because what it is computed
-- from goes on: instances and customers are renamed, past-due hours of the month are paid, held ones are charged at last. So an
-- issued statement is printed the same ever after, and what the books say since is shown beside it.
--
-- Numbers have no gaps: who issues takes an advisory lock first, and a number belongs to the transaction that commits it.

-- locks: Creates the table billing_statements.

create table if not exists billing_statements (
    number          bigint      primary key,
    organization_id uuid        not null,
    month           text        not null
        constraint billing_statements_month check (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    time_zone       text        not null,
    currency        text        not null,
    sha256          text        not null
        constraint billing_statements_sha256 check (sha256 ~ '^[0-9a-f]{64}$'),
    document        jsonb       not null,
    issued_at       timestamptz not null default billing_clock(),
    issued_by       text        not null,
    constraint billing_statements_once unique (organization_id, month, currency),
    constraint billing_statements_positive check (number > 0)
);
comment on table billing_statements is
    'Issued statements of account, as the customer got them; no foreign key: they outlive the organization';
