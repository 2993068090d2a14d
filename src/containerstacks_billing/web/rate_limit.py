"""Rate limit of failed logins per address, in bounded memory and bounded log lines.

Tokens are too long to be guessed; what is bounded here is the noise in the log. Every bearer of the right form is
looked up, whatever failed before from its address: a valid one has to get in.
Behind a reverse proxy every client has the proxy's address unless it passes theirs on: the server believes
X-Forwarded-For from this machine alone, or from the addresses in FORWARDED_ALLOW_IPS.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from containerstacks_billing.logs import logger

ATTEMPTS = 10
WINDOW_SECONDS = 60.0
ADDRESSES = 10_000
LINES = 30


class FailedAttempts:
    """Recent failures of a bounded number of addresses; the least recent address is dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, addresses: int = ADDRESSES) -> None:
        self._clock = clock
        self._addresses = addresses
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()
        # Addresses beyond the limit share one look-up at a time: guesses must not take the connections of readers.
        self.lookup = threading.Semaphore(1)

    def __len__(self) -> int:
        return len(self._failures)

    def retry_after_seconds(self, address: str) -> float:
        """Return the seconds until failures of this address are answered 401 again; zero below the limit."""
        with self._lock:
            failures = self._failures.get(_network(address))
            if failures is None or len(failures) < ATTEMPTS:
                return 0.0
            return max(failures[0] + WINDOW_SECONDS - self._clock(), 0.0)

    def note(self, address: str) -> None:
        """Count a failure."""
        network = _network(address)
        with self._lock:
            self._failures.setdefault(network, deque(maxlen=ATTEMPTS)).append(self._clock())
            self._failures.move_to_end(network)
            if len(self._failures) > self._addresses:
                self._failures.popitem(last=False)


class FailureLog:
    """Log of failures by address, without the token: some lines a minute, then a count of those left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = float("-inf")
        self._said = 0
        self._left_out = 0
        self._lock = threading.Lock()

    def note(self, address: str, why: str) -> None:
        """Log a failure, up to the limit per minute."""
        with self._lock:
            now = self._clock()
            if now - self._begun >= WINDOW_SECONDS:
                self._begun, self._said = now, 0
            if self._said >= LINES:
                self._left_out += 1
                return
            self._said += 1
            left_out, self._left_out = self._left_out or None, 0
        logger().warning("Authentication failed", address=address[:64], why=why, left_out_before=left_out)


def _network(address: str) -> str:
    """Return the network that counts as one client: a single IPv4 address or an IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed)
