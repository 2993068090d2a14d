-- The opening of a wallet: its function and its trigger, in a file of their own because adoption includes it
-- (tables/001_baseline.sql), in the transaction that computes the openings of the wallets that are there.
--
-- balance = opening + sum of completed ledger entries holds for every wallet from its opening on. The opening is what the balance
-- was beyond its entries when billing first saw the wallet. A ledger entry names an organization and a currency, not a wallet:
-- where there are several wallets of a pair, the entries are those of the oldest; the others start from their balance. The successor
-- of the host keeps wallets for web hosting (hosting_wallets), whose entries stand in the same ledger and are left out here.

-- locks: {wallets} gets the trigger billing_open_wallet; locked against writers for milliseconds.

-- Trigger, per inserted wallet.
create or replace function billing_open_wallet() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    new.billing_opening := coalesce(nullif(new.balance, 'NaN'), 0);
    if not exists (select from wallets w
                    where w.organization_id = new.organization_id and upper(w.currency) is not distinct from upper(new.currency)) then
        select new.billing_opening - coalesce(sum(p.amount), 0)
          into new.billing_opening
          from payment_transactions p
         where p.organization_id = new.organization_id and upper(p.currency) is not distinct from upper(new.currency)
           and p.status = 'completed' and p.amount <> 'NaN'
           and (to_regclass('hosting_wallets') is null or p.metadata ->> 'wallet_type' is distinct from 'hosting');
    end if;
    return new;
exception when others then
    -- The host's own INSERT never fails because of us, not even where a migration of the host dropped our column. A wrong opening is
    -- found by `verify`, and is a number, not money.
    begin
        new.billing_opening := 0;
    exception when others then
        null;
    end;
    return new;
end
$$;

create or replace trigger billing_open_wallet before insert on wallets
    for each row execute function billing_open_wallet();
