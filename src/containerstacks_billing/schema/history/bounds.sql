-- Bounds of one transaction. Whatever the role's own limits are, a migration may take its time; but it never stands in
-- front of others in a lock queue for longer than this.
select set_config('lock_timeout', %(lock_timeout)s, true), set_config('statement_timeout', '0', true),
       set_config('idle_in_transaction_session_timeout', '0', true);
