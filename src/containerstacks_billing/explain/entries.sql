-- Ledger entries by kind: one list of what can move a balance, for every account and explanation.

-- part: entry_kind
-- Completed ledger entries with their kind, and their currency in upper case, as runs compare it. Ours say so in provider_transaction_id; everything else is the host's.
entry_kind as not materialized (
    select id, organization_id, upper(currency) as currency, amount, description, payment_method,
        case when isfinite(created_at) then created_at else '-infinity' end as posted_at,
        case when starts_with(provider_transaction_id, 'billing-run-') then 'billing'
             when starts_with(provider_transaction_id, 'billing-adjustment-') then 'correction'
             when starts_with(provider_transaction_id, 'billing-reversal-') then 'reversal'
             when starts_with(provider_transaction_id, 'billing-credit-') then 'credit'
             when starts_with(provider_transaction_id, 'billing-audit-') then 'audit'
             when starts_with(provider_transaction_id, 'billing-') then 'other billing'
             when payment_method = 'wallet_debit' and jsonb_typeof(metadata -> 'run_id') = 'number' then 'billing'
             when payment_method = 'wallet_debit' then 'host billing'
             when amount >= 0 then 'top-up'
             else 'host debit' end as kind
    from payment_transactions
    where status = 'completed' and amount <> 'NaN'
)
