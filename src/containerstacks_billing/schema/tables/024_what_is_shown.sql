-- What the status page, `status` and the metrics read at any moment, however large the fleet and however much is wrong with it.
--
-- An instance that is set aside is a row, and counting rows takes the longer the more there are: a page that is slow on the
-- day on which a price table was imported wrongly is slow when it is needed. So whoever changes billing_quarantine (the
-- end of a run, a release; both under the lease) counts once, and everybody else reads a handful of rows.

create table if not exists billing_set_aside_counts (
    reason    text   primary key,
    instances bigint not null
);
comment on table billing_set_aside_counts is 'How many instances billing_quarantine holds, by reason; rewritten by whoever changes that';
insert into billing_set_aside_counts (reason, instances)
select reason, count(distinct instance_id) from billing_quarantine group by reason
on conflict (reason) do update set instances = excluded.instances;

-- Who has been set aside longest, and which wallets end soonest, are the first rows of an index. Wallets that owe already
-- stand before all others by the end of their runway, so those that do not owe yet have an index of their own.
create index if not exists billing_quarantine_oldest on billing_quarantine (first_seen_at, organization_id, instance_id, segment_id);
create index if not exists billing_runways_ending on billing_runways (empties_at, organization_id)
    where empties_at is not null and past_due_since is null;
create index if not exists billing_runways_owing on billing_runways (empties_at, organization_id)
    where empties_at is not null and past_due_since is not null;
