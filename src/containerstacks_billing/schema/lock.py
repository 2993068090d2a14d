"""The lock of migrators, and patience with other locks: how a piece of migration work waits.

One migrator works at a time; the lock belongs to a transaction, which a pooler cannot leak. A lock on a table is asked
for with a short timeout, because every later session queues behind one that waits: better to let them pass and try
again, a bounded number of times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from psycopg import errors

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.errors import DatabaseUnavailable
from containerstacks_billing.schema.history import statement

ATTEMPTS_FOR_OTHER_MIGRATOR = 600

Result = TypeVar("Result")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long migration work waits for a table: each time, how often, and how long between two attempts."""

    # Longer than deadlock_timeout (1 s), after which an autovacuum in the way is cancelled for us.
    lock_timeout: str = "2s"
    attempts: int = 30
    pause_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class MigrationLock:
    """Runs work of a migrator one piece at a time; `guard` is the connection whose transaction holds the lock."""

    guard: Connection
    progress: Progress
    patience: Patience

    def run(self, work: Callable[[], Result], what: str) -> Result:
        """Do a piece of work in one transaction of the guard, under the migrators' lock; return what it returns.

        Raises DatabaseUnavailable, naming `what`, when that lock or one on a table stays taken.
        """
        return self.retry(lambda: self._alone(work), what)

    def retry(self, work: Callable[[], Result], what: str) -> Result:
        """Do a piece of work again while another session holds a lock it needs, a bounded number of times."""
        for left in range(self.patience.attempts - 1, -1, -1):
            try:
                return work()
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                if not left:
                    break
                self.progress(f"{what}: a table is in use, trying again ({left} attempts left)")
                time.sleep(self.patience.pause_seconds)
        raise DatabaseUnavailable(
            f"A table that {what} changes stayed locked by another session; nothing is half done.",
            "Look for the longest transaction (SELECT pid, query FROM pg_stat_activity ORDER BY xact_start),"
            " then repeat.",
        )

    def set_timeouts(self, connection: Connection) -> None:
        """Set the bounds of the open transaction."""
        connection.execute(statement("bounds"), {"lock_timeout": self.patience.lock_timeout})

    def _alone(self, work: Callable[[], Result]) -> Result:
        for attempt in range(ATTEMPTS_FOR_OTHER_MIGRATOR):
            with self.guard.transaction():
                self.set_timeouts(self.guard)
                if self.guard.execute(statement("lock")).fetchone() == (True,):
                    return work()
            if attempt == 0:
                self.progress("waiting for another migration of this database to end")
            time.sleep(self.patience.pause_seconds)
        raise DatabaseUnavailable(
            "Another migration of this database has been running for ten minutes.",
            "Wait for it to end; `containerstacks-billing migrate --status` shows how far it is.",
        )
