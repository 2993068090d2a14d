"""Server-sent events of the status page: one reading every two seconds, one event per change.

Readings are shared by all streams, and a page is rendered only after a change. Streams are bounded in all and per
address, so that one client, or all clients of one proxy, cannot take them all; a refused page polls `/status/live`. A
stream ends after a minute and the browser reconnects; a stopping server ends them at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

STREAMS = 64
STREAMS_PER_ADDRESS = 16
POLL_SECONDS = 2.0
LIFETIME_SECONDS = 60.0
# A proxy gives up on a connection that says nothing; the time also corrects the clock of the page.
KEEP_ALIVE_SECONDS = 10.0

# Given what was seen before: what is seen now, the time, and the news as a JSON object, None when nothing changed.
Poll = Callable[[object], Awaitable[tuple[object, str, dict[str, object] | None]]]


class Streams:
    """The streams of one application."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._ending = asyncio.Event()

    def full(self, address: str) -> bool:
        """Return whether there is no room for another stream of this address."""
        return (
            self._open.total() >= STREAMS
            or self._open[address] >= STREAMS_PER_ADDRESS
            or self._ending.is_set()
        )

    def end(self) -> None:
        """Let every stream end after its next piece."""
        self._ending.set()

    async def pieces(self, poll: Poll, address: str) -> AsyncIterator[str]:
        """Yield events until the client leaves, the server stops or a minute is over."""
        self._open[address] += 1
        try:
            yield "retry: 2000\n\n"
            ends = time.monotonic() + LIFETIME_SECONDS
            before: object = None
            sent_at = float("-inf")
            while time.monotonic() < ends and not self._ending.is_set():
                before, now, news = await poll(before)
                if news is not None:
                    yield f"event: state\ndata: {json.dumps({'now': now, **news})}\n\n"
                    sent_at = time.monotonic()
                elif time.monotonic() - sent_at >= KEEP_ALIVE_SECONDS:
                    yield f"event: time\ndata: {json.dumps({'now': now})}\n\n"
                    sent_at = time.monotonic()
                await self._pause()
        finally:
            self._open[address] -= 1
            self._open += Counter()  # drops addresses without a stream

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), POLL_SECONDS)
