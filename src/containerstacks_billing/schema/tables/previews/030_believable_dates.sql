-- What 030 locks: 200 MB a second read.
select format('vps_instances (%s) gets one more trigger and is read once; locked against writers for about %s s.',
              pg_size_pretty(bytes), 1 + bytes / 200000000)
  from (select pg_relation_size(to_regclass('vps_instances')) as bytes) size
 where bytes is not null;
