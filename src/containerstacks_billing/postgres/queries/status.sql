-- What the tables say about billing at this moment. Everything here reads one row, or a bounded number of them: the
-- answer is as quick beside ten million charges as beside ten.

-- name: set_aside_reasons
-- Why instances are set aside, most frequent reason first; counts at most a hundred thousand of them.
select reason, count(distinct instance_id)::integer as instances
from (
    select reason, instance_id from billing_quarantine
    where organization_id between %(first_organization)s and %(last_organization)s
    limit 100000
) set_aside
group by reason
order by instances desc, reason;

