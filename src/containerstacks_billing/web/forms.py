"""Forms of the pages: where they came from, and their fields."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from fastapi import Request


def from_this_origin(request: Request) -> bool:
    """Whether a page of this origin sent a form. Programs that are no browsers say nothing, and have no cookie."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def form_of(request: Request) -> dict[str, str]:
    """Read a small form; the first value of each field."""
    try:
        fields = parse_qs((await request.body()).decode(), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}
