"""A copy of a database, and a forked process that kills itself."""

from __future__ import annotations

import os
import secrets
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from containerstacks_billing.errors import BillingError


@contextmanager
def copied(template: str) -> Iterator[str]:
    """Yield the conninfo of a copy of a database, which is dropped afterwards."""
    source = str(conninfo_to_dict(template)["dbname"])
    name = f"{source[:40]}_{secrets.token_hex(4)}"
    with psycopg.connect(make_conninfo(template, dbname="postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template {}").format(*map(sql.Identifier, (name, source))))
        try:
            yield make_conninfo(template, dbname=name)
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def dies(work: Callable[[], object], what: str, tolerates: tuple[type[BillingError], ...] = ()) -> bool:
    """Fork a process that does some work and kills itself in it; False when it came to its end before.

    What it tolerates is an end as well; any other error fails the parent, which names what was to be killed.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        if status:
            raise AssertionError(f"{what} was to be killed and ended with status {status}")
        return False
    try:
        work()
        os._exit(0)
    except tolerates:
        os._exit(0)
    except BaseException:  # noqa: BLE001  (nothing of the parent may run on in this process)
        traceback.print_exc()
        os._exit(1)
