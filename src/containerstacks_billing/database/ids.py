"""Bounds of the UUID range, for statements that cover every organization or instance."""

from __future__ import annotations

from uuid import UUID

FIRST_UUID = UUID(int=0)
LAST_UUID = UUID(int=2**128 - 1)
