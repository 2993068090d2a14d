-- One migrator at a time. The lock belongs to the transaction, so it works behind a pooler, and ends with a lost connection.
-- It is tried for and not waited for: a session that waits in a statement holds a snapshot, and the concurrent index
-- builds of the one in front would wait for that snapshot, each for the other and without a deadlock to be detected.
select pg_try_advisory_xact_lock(hashtextextended('containerstacks-billing migrate', 0));
