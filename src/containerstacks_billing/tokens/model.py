"""API tokens: format, hash and comparison."""

from __future__ import annotations

import hashlib
import hmac
import re

# The beginning lets people and secret scanners recognise a token that was left lying about.
PREFIX = "csb_"
RANDOM_BYTES = 32
# What a token may do: see runs and the fleet, see customers and their money, release what is held. Each may read.
READ, FINANCE, DECIDE = "read", "finance", "decide"
SCOPES = frozenset({READ, FINANCE, DECIDE})
USUAL_SCOPES = (READ, FINANCE)
_SHAPE = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{43}")


def is_token(text: str) -> bool:
    """Return whether a text has the format of an API token."""
    return _SHAPE.fullmatch(text) is not None


def hash_of(text: str) -> bytes:
    """Return the stored hash of a token. It holds 256 random bits, so salt or a slow hash would add nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def same(first: bytes, second: bytes) -> bool:
    """Compare two hashes in constant time."""
    return hmac.compare_digest(first, second)
