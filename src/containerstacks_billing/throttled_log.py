"""Rate-limited logging of a persistent error, with exponential intervals, so that an outage does not fill the disk."""

from __future__ import annotations

import threading
from typing import Literal

from containerstacks_billing import logs
from containerstacks_billing.backoff import silence_seconds
from containerstacks_billing.clock import Clock
from containerstacks_billing.errors import BillingError


class RecurringError:
    """One kind of error: `what` is logged when it occurs, `again` when it is over."""

    def __init__(
        self, clock: Clock, what: str, again: str, level: Literal["warning", "error"] = "error"
    ) -> None:
        self._clock = clock
        self._what = what
        self._again = again
        self._level = level
        self._lock = threading.Lock()
        self._kind: type[BaseException] | None = None
        self._since = 0.0
        self._said = 0
        self._next = 0.0

    def report(self, error: BaseException) -> None:
        """Log the trouble if it is new, another than before, or was not mentioned for long enough."""
        now = self._clock.monotonic()
        with self._lock:
            if self._kind is None:
                self._since = now
            if type(error) is not self._kind:
                self._kind, self._said = type(error), 0
            elif now < self._next:
                return
            self._said += 1
            self._next = now + silence_seconds(self._said)
        lasting = now - self._since
        hint = error.hint if isinstance(error, BillingError) else None
        minutes = round(lasting / 60) if lasting >= 60 else None
        known = isinstance(error, BillingError)
        log = logs.logger()
        (log.error if self._level == "error" else log.warning)(
            self._what,
            reason=str(error) if known else None,
            hint=hint,
            for_minutes=minutes,
            exc_info=None if known else error,
        )

    def resolved(self) -> bool:
        """Log that it is over, if it was ever said; return whether it was."""
        with self._lock:
            if self._kind is None:
                return False
            seconds, self._kind, self._said = self._clock.monotonic() - self._since, None, 0
        logs.logger().info(self._again, after_seconds=round(seconds, 1))
        return True
