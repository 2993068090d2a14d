"""The lease: the right to bill, for a limited time.

It keeps billers from doing the same work side by side. It is not what makes a charge safe: that is the charging
transaction, which would be safe without it (charging/README.md). So the lease may be simple, and may be lost at any
moment: a paused process wakes up, finds that its token and nonce are not in the table any more, and charges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

LEASE_SECONDS = 30
RENEW_SECONDS = 10
WAIT_SECONDS = 90


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was obtained: its holder, and the pair that fences every batch.

    The nonce stands beside the token because a replica that was promoted can issue a token a second time.
    """

    holder: str
    fencing_token: int
    nonce: UUID
