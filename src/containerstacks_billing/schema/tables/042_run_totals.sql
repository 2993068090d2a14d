-- Totals of all runs, for counters that never go back.
--
-- A counter of Prometheus that falls is taken for one that began anew, and what it counted is added once more. Runs that charged
-- nothing are removed after RETENTION_DAYS, so what is counted of a run is added here before, up to a run number; a reader adds the
-- runs after that number. So a scrape reads the runs of an hour and not those of ten years.

-- locks: Creates the table billing_run_totals.

create table if not exists billing_run_totals (
    trigger          text    not null,
    outcome          text    not null,
    counted_until    bigint  not null,
    runs             bigint  not null,
    hours            numeric not null,
    amount           numeric not null,
    duration_seconds numeric not null,
    within_1s        bigint  not null,
    within_5s        bigint  not null,
    within_15s       bigint  not null,
    within_60s       bigint  not null,
    within_300s      bigint  not null,
    within_900s      bigint  not null,
    within_3600s     bigint  not null,
    primary key (trigger, outcome)
);
comment on table billing_run_totals is 'What runs added up to, by trigger and outcome, up to the run that is the greatest counted_until';

-- What is past due is counted by each run at its end, so that no scrape reads every past-due charge; null: a run of an older version.
alter table billing_runs add column if not exists past_due_amount numeric;
comment on column billing_runs.past_due_amount is 'what the run left past due, of the organizations that it was for';
