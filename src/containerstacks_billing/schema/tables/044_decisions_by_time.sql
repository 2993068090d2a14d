-- Indexes of decisions and price corrections by time, so that the list of both reads one page of each.

-- locks: Builds an index of billing_decisions and one of billing_price_corrections within milliseconds; a decision waits for it.

create index if not exists billing_decisions_by_time on billing_decisions (decided_at, id);
create index if not exists billing_price_corrections_by_time on billing_price_corrections (decided_at, id);
