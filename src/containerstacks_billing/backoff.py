"""Exponential backoff: pauses between attempts, and intervals between repeated log lines."""

from __future__ import annotations

FIRST_PAUSE_SECONDS = 1.0
FIRST_SILENCE_SECONDS = 60.0
LONGEST_SILENCE_SECONDS = 3600.0


def pause_seconds(failures: int, longest_seconds: float, chance: float) -> float:
    """Return the pause in seconds after consecutive failures: doubling, bounded, with jitter from `chance` in [0, 1).

    At least half of the pause is kept, so that attempts neither meet each other nor follow at once.
    """
    full = min(FIRST_PAUSE_SECONDS * 2.0 ** min(max(failures, 1) - 1, 30), longest_seconds)
    return full * (0.5 + chance / 2)


def silence_seconds(said: int) -> float:
    """Return the seconds until a persistent error is logged again, after it was logged `said` times."""
    return min(FIRST_SILENCE_SECONDS * 2.0 ** min(max(said, 1) - 1, 30), LONGEST_SILENCE_SECONDS)
