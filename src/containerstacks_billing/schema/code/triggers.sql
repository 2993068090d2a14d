-- no-transaction
-- The triggers of billing, apart from that of wallets (wallet_opening.sql). Repeatable, as functions.sql is.
--
-- One step per table: a transaction that held the locks of two of the host's tables could deadlock with the host. Within a table
-- and an event, PostgreSQL fires triggers in the order of their names.

-- step: triggers of vps_plans
-- locks: {vps_plans} gets the trigger billing_price_changed; locked against writers for about {read vps_plans} s, while the first price of each plan is recorded.
begin;
create or replace trigger billing_price_changed after insert or update on vps_plans
    for each row execute function billing_price_changed();

-- The first version of every price, under the lock that the trigger takes, so that no change falls between the two.
select billing_record_price(p, '-infinity') from vps_plans p
where not exists (select from plan_price_versions v where v.plan_id = p.id);
commit;

-- step: triggers of vps_instances
-- locks: {vps_instances} gets the triggers of metering; locked against writers for milliseconds.
begin;
create or replace trigger billing_begin_metering before insert on vps_instances
    for each row execute function billing_begin_metering();

create or replace trigger billing_read_policies before update on vps_instances
    for each statement execute function billing_read_policies();

-- Before all others, which go by rated_until.
create or replace trigger billing_begin_metering_late before update on vps_instances
    for each row when (old.rated_from is null and old.rated_until is null and new.rated_from is null)
    execute function billing_begin_metering_late();

drop trigger if exists billing_keep_pending_segments on vps_instances;
drop function if exists billing_keep_pending_segments();
drop trigger if exists billing_keep_rated_until on vps_instances;
drop function if exists billing_keep_rated_until();

-- Before billing_move_watermark, which writes it.
create or replace trigger billing_keep_lasting_status before update on vps_instances
    for each row when (billing_takes_lasting_status(old, new))
    execute function billing_keep_lasting_status();

-- Before billing_move_watermark, which goes by what stands there.
create or replace trigger billing_keep_rated before update on vps_instances
    for each row when (billing_is_set_back(old, new))
    execute function billing_keep_rated();

-- After billing_keep_rated, which takes back what the host writes into pending_segments.
create or replace trigger billing_keep_watermark before update on vps_instances
    for each row when (billing_is_paid_by_host(old, new))
    execute function billing_keep_watermark();

create or replace trigger billing_move_watermark before update on vps_instances
    for each row when (billing_ends_segment(old, new))
    execute function billing_move_watermark();

create or replace trigger billing_close_deleted after delete on vps_instances
    referencing old table as old_rows
    for each statement execute function billing_close_deleted();

create or replace trigger billing_close_truncated before truncate on vps_instances
    for each statement execute function billing_close_truncated();
commit;

-- step: triggers of tables of billing
begin;
create or replace trigger billing_notify_events after insert on billing_events
    referencing new table as new_events
    for each statement execute function billing_notify_events();

create or replace trigger billing_make_room_for_policy before insert on billing_policies
    for each row when (new.valid_from = '-infinity')
    execute function billing_make_room_for_policy();

create or replace trigger billing_make_room_for_lease before insert on billing_leases
    for each row execute function billing_make_room_for_lease();

-- A constraint trigger cannot be replaced.
drop trigger if exists billing_date_price on plan_price_versions;
create constraint trigger billing_date_price after insert on plan_price_versions
    deferrable initially deferred
    for each row when (new.begins_at_commit and not new.announced and isfinite(new.valid_from))
    execute function billing_date_price();
commit;
