-- Whether the status table is the host's already.
select case when to_regclass('billing_daemon_status') is null then 'Creates billing_daemon_status: nothing is locked.'
            else 'Keeps billing_daemon_status and its rows.' end;
