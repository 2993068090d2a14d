-- What another price would do: what every organization burns at given rates, and what its wallet can still pay.

-- name: suppose_price
-- Let a price have been in force for everything that is not charged yet, and from now on; rolled back by the caller.
update plan_price_versions
set base_price = %(base_price)s, markup_price = %(markup_price)s
where plan_id = %(plan_id)s and valid_to > %(as_of)s - (%(max_catch_up_hours)s + 1) * interval '1 hour' and valid_from <= %(as_of)s;

-- name: price_changes
-- The instants between now and a later one at which an announced price begins.
select distinct valid_from from plan_price_versions
where valid_from > %(as_of)s and valid_from < %(until)s
order by valid_from
limit 100;

-- name: burn_by_organization
-- What the billable instances of each organization cost per hour at given rates, in hundred-millionths, and what they used since
-- their watermarks and no run has charged yet.
with
-- include: metered
select organization_id, sum(rate)::bigint, sum(rate * date_part('epoch', %(as_of)s - watermark) / 3600)::bigint
from metered
group by organization_id
having sum(rate) > 0;

-- name: paying_wallets
-- What each organization can still pay.
with
-- include: payers
select organization_id, organizations.name, balance, available, past_due_since
from payer
left join organizations on organizations.id = organization_id;
