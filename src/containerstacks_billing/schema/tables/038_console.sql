-- What pages and API need: scopes of tokens, the results of verify, and organizations in the order of their names.
--
-- A token made before scopes could read everything and decide nothing, and so it remains. Results of verify over all the books are
-- kept so that a page and an alert know when the books were last proven; the newest few hundred stay.

-- locks: {organizations}: an index of their names is built; nobody else writes there for about {index organizations} s. billing_tokens gets the column scopes, and the table billing_verifications is made; milliseconds.

alter table billing_tokens add column if not exists scopes text[] not null default '{read,finance}';
alter table billing_tokens drop constraint if exists billing_tokens_known_scopes;
alter table billing_tokens add constraint billing_tokens_known_scopes
    check (scopes <@ '{read,finance,decide}' and 'read' = any (scopes));
comment on column billing_tokens.scopes is 'read: runs and the fleet; finance: customers and their money; decide: release what is held';

create index if not exists billing_organizations_by_name on organizations ((lower(name) collate "C"), id);

create table if not exists billing_verifications (
    id            bigint generated always as identity primary key,
    read_at       timestamptz not null,
    finished_at   timestamptz not null default billing_clock(),
    discrepancies bigint      not null,
    document      jsonb       not null,
    verified_by   text        not null
);
comment on table billing_verifications is 'Results of verify over all the books, as its --json prints them; the newest few hundred';
