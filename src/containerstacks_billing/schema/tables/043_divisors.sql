-- An index of the divisors that runs used, so that an explanation finds the few of them without reading every run.

-- locks: Builds an index of billing_runs within milliseconds; a run waits for it.

create index if not exists billing_runs_hours_per_month on billing_runs (hours_per_month);
