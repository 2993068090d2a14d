"""The stream of events behind the page: a look every two seconds, a piece when something changed.

A stream costs a look that is shared with all others, and a page only when there is news. There are a bounded number of
them, and each ends after a minute: the browser comes back by itself, and a server that stops has not long to wait for
it. Our own server ends them at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

STREAMS = 64
LOOK_SECONDS = 2.0
LIFETIME_SECONDS = 60.0
# A proxy gives up on a connection that says nothing; the time also corrects the clock of the page.
SAY_SOMETHING_SECONDS = 10.0

# Given what was seen before: what is seen now, the time, and the news as a JSON object, None when nothing changed.
Look = Callable[[object], Awaitable[tuple[object, str, dict[str, object] | None]]]


class Streams:
    """The streams of one application."""

    def __init__(self) -> None:
        self._open = 0
        self._ending = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return self._open >= STREAMS or self._ending.is_set()

    def end(self) -> None:
        """Let every stream end after its next piece."""
        self._ending.set()

    async def pieces(self, look: Look) -> AsyncIterator[str]:
        """Yield events until the client leaves, the server stops or a minute is over."""
        self._open += 1
        try:
            yield "retry: 2000\n\n"
            ends = time.monotonic() + LIFETIME_SECONDS
            before: object = None
            said = float("-inf")
            while time.monotonic() < ends and not self._ending.is_set():
                before, now, news = await look(before)
                if news is not None:
                    yield f"event: state\ndata: {json.dumps({'now': now, **news})}\n\n"
                    said = time.monotonic()
                elif time.monotonic() - said >= SAY_SOMETHING_SECONDS:
                    yield f"event: time\ndata: {json.dumps({'now': now})}\n\n"
                    said = time.monotonic()
                await self._pause()
        finally:
            self._open -= 1

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), LOOK_SECONDS)
