-- Openings of wallets: without the entries of hosting wallets, and with those of a currency in another case.
--
-- The successor of the host keeps a second wallet per organization for web hosting (hosting_wallets), and its movements stand in
-- payment_transactions too (metadata wallet_type = hosting). They move no balance of ours, so they belong neither into a sum that is
-- compared with a balance nor into an opening. Openings that were computed with them, by the baseline or by an earlier version, are
-- corrected by those that were there when billing first saw the wallet; later ones never came into an opening.
--
-- A currency is compared without case: the entries of a wallet in `usd` are in `USD`.

-- locks: {wallets}: openings are corrected where the host has hosting wallets, after {payment_transactions} has been read in about {read payment_transactions} s; its rows are locked for that long.
do $$
begin
    lock table wallets in share row exclusive mode;
    with entries as (
        select wallets.id, sum(entry.amount) as total
          from wallets
          join payment_transactions entry on entry.organization_id = wallets.organization_id
            and upper(entry.currency) = upper(wallets.currency) and entry.currency <> wallets.currency
         where entry.status = 'completed' and entry.amount <> 'NaN'
           and entry.created_at < coalesce((select min(started_at) from billing_runs), 'infinity')
           and not exists (select from wallets other
                            where other.organization_id = wallets.organization_id and other.id <> wallets.id
                              and upper(other.currency) = upper(wallets.currency))
         group by wallets.id
    )
    update wallets set billing_opening = billing_opening - entries.total from entries where entries.id = wallets.id;
    if to_regclass('hosting_wallets') is null then
        return;
    end if;
    with hosting as (
        select organization_id, currency, sum(amount) as total
          from payment_transactions
         where status = 'completed' and amount <> 'NaN' and metadata ->> 'wallet_type' = 'hosting'
           and created_at < coalesce((select min(started_at) from billing_runs), 'infinity')
         group by organization_id, currency
    ), oldest as (
        select distinct on (organization_id, currency) id, organization_id, currency
          from wallets order by organization_id, currency, created_at, id
    )
    update wallets
       set billing_opening = billing_opening + hosting.total
      from oldest, hosting
     where oldest.id = wallets.id and hosting.organization_id = oldest.organization_id
       and hosting.currency is not distinct from oldest.currency;
end
$$;
