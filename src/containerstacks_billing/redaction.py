"""Redaction of secrets in any text.

Two methods: the shapes that secrets have (a password inside a URL, `password=...`, a bearer token), and the very
values that the configuration holds. The first works before there is a configuration, when the driver echoes a
malformed connection string; the second catches a secret without a shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

MASK = "***"

# A shorter value would be found everywhere by chance, and taken out of harmless words.
_SHORTEST_SECRET = 4

_HOST_PART = re.compile(r"[\w.:,\[\]%-]*(/[\w.%-]*)?(\?\S*)?", re.ASCII)
# The placeholder URL of our own hints, which has to stay readable.
_EXAMPLE = (
    r"postgresql://user:password@(?:host|localhost):(?:port|5432)/(?:database|containerstacks)(?![^\s.,;)])"
)
_DATABASE_URL = re.compile(rf"(?!{_EXAMPLE})(postgres(?:ql)?://)(\S+)", re.IGNORECASE)
_ANY_URL_LOGIN = re.compile(rf"(?!{_EXAMPLE})(\b\w+://)[^\s/@]+@")
# `DATABASE_URL: it is in no file` is a sentence about the key, with a word where a value would be.
_SENTENCE = r":\s+[a-z]+(?:[\s,.;]|$)"
_ASSIGNMENT = re.compile(
    rf"""(?ix) \b((?:\w*password|\w*passwd|\w*secret|\w*api_?key|DATABASE_URL(?!{_SENTENCE}))["']?\s*[=:]\s*)
        (?!{_EXAMPLE})
        (?: '(?:[^'\\]|\\.)*(?:'|$) | "(?:[^"\\]|\\.)*(?:"|$) | [^\s&"']+ )"""
)
_TOKEN = re.compile(r"(?i)\b(\w*token[\"']?\s*[=:]\s*[\"']?)[^\s&\"']{12,}")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[^\s\"',]+")


def _database_url(found: re.Match[str]) -> str:
    """Keep host and database of a URL; all before the last @ may be part of a password."""
    scheme, rest = found.groups()
    if "@" in rest:
        return f"{scheme}{MASK}@{rest.rpartition('@')[2]}"
    _, colon, port = rest.partition(":")
    if _HOST_PART.fullmatch(rest) and (not colon or re.match(r"[0-9]+([/?,]|$)", port)):
        return found.group(0)
    return f"{scheme}{MASK}"


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text with passwords, tokens and the given secret values replaced by `***`."""
    for secret in sorted(
        (value for value in secrets if len(value) >= _SHORTEST_SECRET), key=len, reverse=True
    ):
        text = text.replace(secret, MASK)
    text = _DATABASE_URL.sub(_database_url, text)
    text = _ANY_URL_LOGIN.sub(rf"\1{MASK}@", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _TOKEN.sub(rf"\1{MASK}", text)
    return _ASSIGNMENT.sub(rf"\1{MASK}", text)


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return `redact` bound to the secret values of a configuration."""
    known = tuple(secrets)
    return lambda text: redact(text, known)
