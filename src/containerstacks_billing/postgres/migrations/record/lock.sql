-- One migrator at a time. The lock belongs to the transaction, so it works behind a pooler, and ends with a lost connection.
select pg_advisory_xact_lock(hashtextextended('containerstacks-billing migrate', 0));
