"""Fence around the ledger: hourly debits of the host's own scheduler are refused while a biller of ours is alive.

Opt-in, because it makes statements of the host fail: for a host that bills beside any daemon and cannot be redeployed
soon. The trigger stands on the host's ledger and is no part of the delivered schema, so an upgrade neither makes nor
removes it.
"""

from __future__ import annotations

from psycopg import sql

from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.schema.diagnose import diagnosed

_NAME = "billing_fence_host_debits"
_INSTALL = """
    create or replace trigger billing_fence_host_debits before insert on payment_transactions for each row
    when (new.payment_method = 'wallet_debit' and new.description like 'VPS Hourly Billing - %'
          and coalesce(new.provider_transaction_id, '') not like 'billing-%')
    execute function billing_refuse_host_debit({minutes})
"""


def fence_host_billing(conninfo: str, failover_after_minutes: int) -> bool:
    """Install the fence, or give it another threshold; return whether there was none before."""
    with diagnosed(conninfo), connect(conninfo, purpose="maintenance") as connection:
        with bounded_transaction(connection):
            was_open = not is_fenced(connection)
            connection.execute(sql.SQL(_INSTALL).format(minutes=sql.Literal(str(failover_after_minutes))))
        return was_open


def unfence_host_billing(conninfo: str) -> bool:
    """Remove the fence; return whether there was one."""
    with diagnosed(conninfo), connect(conninfo, purpose="maintenance") as connection:
        with bounded_transaction(connection):
            was_fenced = is_fenced(connection)
            connection.execute("drop trigger if exists billing_fence_host_debits on payment_transactions")
        return was_fenced


def is_fenced(connection: Connection) -> bool:
    """Whether the fence stands."""
    found = connection.execute(
        "select exists (select from pg_trigger where tgrelid = to_regclass('payment_transactions') and tgname = %s)",
        (_NAME,),
    ).fetchone()
    return bool(found and found[0])
