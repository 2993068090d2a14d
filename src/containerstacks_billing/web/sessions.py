"""Who is signed in to the page: a random cookie in the browser, everything else in here.

The cookie is worth nothing outside this process and nothing after it ends: 256 random bits, HttpOnly, SameSite=Strict.
The bearer of a sign-in stays in memory and is recognised again every half minute, so a token that is
revoked or expires, or a user who is no admin any more, sees nothing from then on. An application with several replicas
signs in once with each, or sends a browser to the same one.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from containerstacks_billing.errors import BillingError
from containerstacks_billing.tokens.model import SCOPES, same

COOKIE = "billing_session"
SESSIONS = 1000
LIFETIME_SECONDS = 12 * 3600.0
RECOGNISE_AGAIN_SECONDS = 30.0


@dataclass(slots=True)
class Session:
    """One browser that is signed in; `csrf` is what its forms have to carry."""

    name: str
    bearer: str
    csrf: str
    ends: float
    recognised: float
    scopes: frozenset[str] = SCOPES

    def may(self, scope: str) -> bool:
        """Return whether the bearer of the sign-in has a scope."""
        return scope in self.scopes


class Sessions:
    """The sessions of one process, bounded: when there are too many, the oldest ends."""

    def __init__(self, recognise: Callable[[str], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._recognise = recognise
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, name: str, bearer: str, scopes: frozenset[str] = SCOPES) -> str:
        """Begin a session for a bearer that was recognised just now; return the cookie."""
        cookie = secrets.token_urlsafe(32)
        now = self._clock()
        session = Session(name, bearer, secrets.token_urlsafe(32), now + LIFETIME_SECONDS, now, scopes)
        with self._lock:
            self._sessions[_key(cookie)] = session
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None when it has none, or its bearer is not recognised any more.

        While the database is away a session stays; no figures can be seen then.
        """
        if not cookie:
            return None
        now = self._clock()
        with self._lock:
            session = self._sessions.get(_key(cookie))
        if session is None:
            return None
        if now >= session.ends:
            self.end(cookie)
            return None
        if now - session.recognised >= RECOGNISE_AGAIN_SECONDS:
            try:
                if not self._recognise(session.bearer):
                    self.end(cookie)
                    return None
                session.recognised = now
            except BillingError:
                return session
        return session

    def end(self, cookie: str | None) -> None:
        """End a session, if there is one."""
        if cookie:
            with self._lock:
                self._sessions.pop(_key(cookie), None)


def carries(session: Session, csrf: str) -> bool:
    """Whether a form came from a page of this session."""
    return same(session.csrf.encode(), csrf.encode("utf-8", "replace"))


def _key(cookie: str) -> bytes:
    # Looked up by its hash, so that the time of the search says nothing about the cookie.
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).digest()
