-- Transient statuses: a status that only says that the provider is at work, such as `rebooting`, continues the one before it.
--
-- The host stores what the provider said at the second of a reboot, and looks again when a page is opened. An instance that was
-- billable would be free until then. So billing keeps the last status that was not transient beside the host's.
-- What stands in a transient status now has no status before that is known: it is judged by its own until it changes.

-- locks: {vps_instances} gets the column lasting_status; locked for milliseconds.
alter table vps_instances add column if not exists lasting_status text;
comment on column vps_instances.lasting_status is 'the status before a transient one, by which the instance is billed; null while its status is not transient';

alter table billing_policies add column if not exists transient_statuses text[] not null
    default '{booting,rebooting,shutting_down,migrating,resizing,rebuilding,restoring,cloning}';
comment on column billing_policies.transient_statuses is 'statuses that continue the one before them; none that is billable by name';

alter table billing_charged_until add column if not exists lasting_status text;
comment on column billing_charged_until.lasting_status is 'the status that the instance was billed by when its row left';
