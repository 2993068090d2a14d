-- A column without a default: the catalog alone is written.
select format('vps_billing_cycles (%s): a column is added without rewriting a row; locked against everybody for milliseconds.',
              pg_size_pretty(pg_relation_size(to_regclass('vps_billing_cycles'))))
 where to_regclass('vps_billing_cycles') is not null;
