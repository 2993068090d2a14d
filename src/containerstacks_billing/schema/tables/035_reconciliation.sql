-- Decisions about discrepancies: accepted or restored.
--
-- A host may legitimately do what `verify` has to report: archive ledger entries, make a wallet anew, overwrite a balance. A
-- decision settles such a discrepancy for good, with its author and reason, and `verify` honours it: an accepted discrepancy by
-- its fingerprint, an accepted difference of carries by its amount. A difference of balances moves the opening or the balance
-- itself, and the decision keeps by how much. Rows are never removed.
-- locks: billing_decisions and billing_usage_segments for an instant, to replace two constraints

alter table billing_decisions alter column instance_id drop not null;
alter table billing_decisions alter column organization_id drop not null;
alter table billing_decisions
    add column if not exists wallet_id uuid,
    add column if not exists amount numeric(18, 8),
    add column if not exists check_name text,
    add column if not exists fingerprint text,
    add column if not exists message text;
alter table billing_decisions drop constraint if exists billing_decisions_known_decision;
alter table billing_decisions add constraint billing_decisions_known_decision
    check (decision in ('charge', 'cap', 'waive', 'accept', 'restore'));
alter table billing_decisions drop constraint if exists billing_decisions_complete;
alter table billing_decisions add constraint billing_decisions_complete
    check (decision in ('accept', 'restore') and check_name is not null
        or decision not in ('accept', 'restore') and instance_id is not null and organization_id is not null);
create unique index if not exists billing_decisions_accepted on billing_decisions (check_name, fingerprint)
    where decision = 'accept' and fingerprint is not null;
create index if not exists billing_decisions_reconciled on billing_decisions (check_name, organization_id)
    where decision in ('accept', 'restore');

alter table billing_usage_segments drop constraint if exists billing_usage_segments_known_reason;
alter table billing_usage_segments add constraint billing_usage_segments_known_reason
    check (reason in ('status', 'plan', 'organization', 'backups', 'deleted', 'policy', 'restored'));
