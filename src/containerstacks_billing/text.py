"""Spans of time and counts in English words."""

from __future__ import annotations

from datetime import timedelta


def span(time: timedelta) -> str:
    """Return a span in its two largest units, seconds at the least: `2 d 4 h`, `3 min 5 s`; a negative one is `0 s`."""
    seconds = max(int(time.total_seconds()), 0)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s for every number but one: `1 instance`, `1,200 instances`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
