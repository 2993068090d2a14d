-- The opening of a wallet: its function and its trigger, in a file of their own because adoption includes it
-- (tables/001_baseline.sql), in the transaction that computes the openings of the wallets that are there.
--
-- balance = opening + sum of completed ledger entries holds for every wallet from its opening on. The opening is what the balance
-- was beyond its entries when billing first saw the wallet. A ledger entry names an organization and a currency, not a wallet:
-- where there are several wallets of a pair, the entries are those of the oldest; the others start from their balance. The successor
-- of the host keeps wallets for web hosting (hosting_wallets), whose entries stand in the same ledger and are left out here.

-- locks: {wallets} gets the trigger billing_open_wallet; locked against writers for milliseconds.

-- What a wallet carries from the start: nothing, unless it is the only one of an organization whose charges were billed to one that is
-- gone. Then it is what they come to beyond what was debited, or the remainder below a cent would be lost with the old wallet. A
-- difference of a cent or more is no carry; `verify` finds it.
create or replace function billing_carry_of(wallet wallets) returns numeric
    language plpgsql stable security definer set search_path = public, pg_temp
as $$
declare
    carry numeric;
begin
    if wallet.billing_carry <> 0 or exists (select from wallets other where other.organization_id = wallet.organization_id) then
        return wallet.billing_carry;
    end if;
    carry := coalesce((select sum(total_amount) from vps_billing_cycles
                       where organization_id = wallet.organization_id and run_id is not null and status in ('billed', 'refunded')), 0)
        + coalesce((select sum(amount) from billing_adjustments where organization_id = wallet.organization_id), 0)
        + coalesce((select sum(amount) from billing_decisions
                    where organization_id = wallet.organization_id and decision = 'accept' and check_name = 'carries'), 0)
        + coalesce((select sum(amount) from payment_transactions
                    where organization_id = wallet.organization_id and status = 'completed'
                      and (provider_transaction_id ~ '^billing-(run|adjustment|reversal|credit|audit)-'
                           or payment_method = 'wallet_debit' and jsonb_typeof(metadata -> 'run_id') = 'number')), 0);
    return case when carry > 0 and carry < 0.01 then carry else wallet.billing_carry end;
exception when others then
    return wallet.billing_carry;
end $$;
revoke execute on function billing_carry_of(wallets) from public;

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
    new.billing_carry := billing_carry_of(new);
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
