"""`doctor`: every check is a function that yields findings; a check that cannot work is a finding too.

To add a check, write such a function in `host`, `unit`, `database` or `billing` and name it in `examine` or in the
CHECKS of its module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from containerstacks_billing.config import load as configuration
from containerstacks_billing.config import target
from containerstacks_billing.database import inspect as examination
from containerstacks_billing.database.connection import connect
from containerstacks_billing.database.conninfo import describe
from containerstacks_billing.doctor import billing, database, host, unit
from containerstacks_billing.errors import BillingError, OthersFile
from containerstacks_billing.findings import Finding, Level, failure, ok, warn
from containerstacks_billing.sandbox.server import default_directory

__all__ = ["Finding", "Level", "examine"]


def examine(flags: Mapping[str, str | None], *, with_signal: bool = False) -> Iterator[Finding]:
    """Run every check that can run, in the order in which their faults hide each other.

    With `with_signal`, HEARTBEAT_URL gets a signal as after a completed run.
    """
    yield from host.interpreter()
    yield from host.memory()
    yield from host.room()
    yield from unit.unit()
    try:
        loaded = configuration.load(flags)
    except OthersFile as error:
        # What this user may not see is no fault: root sees it.
        yield warn("configuration", str(error), error.hint)
        return
    except BillingError as error:
        yield failure("configuration", error)
        return
    yield from host.configuration(loaded)
    yield from host.env_file(loaded)
    if with_signal:
        yield host.run_signal(loaded.settings)
    yield from _database(loaded)


def _database(loaded: configuration.Configuration) -> Iterator[Finding]:
    try:
        chosen = target.target(loaded.settings, announce=lambda _: None)
        connection = connect(chosen.conninfo, purpose="reading")
    except BillingError as error:
        yield failure("database", error)
        return
    with connection:
        which = (
            "the embedded database, not for production" if chosen.embedded else "reachable, login accepted"
        )
        yield ok("database", f"{describe(chosen.conninfo)}: {which}")
        subject = database.Subject(
            loaded.settings, chosen, connection, examination.server(connection, chosen.conninfo)
        )
        readable = not examination.missing_tables(connection) and examination.may_read(connection)
        for check in (*database.CHECKS, *((*billing.CHECKS, *database.TABLE_CHECKS) if readable else ())):
            try:
                yield from check(subject)
            except BillingError as error:
                yield failure(check.__name__.replace("_", " "), error)
    if chosen.embedded:
        yield from host.disk(default_directory())
