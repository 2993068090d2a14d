"""Letterhead of printed statements: who issues them, in which locale, and how they are numbered.

A hoster writes it as a TOML file:

    name = "Example Hosting Ltd"
    address = ["1 Example Street", "Example City"]
    contact = ["billing@example.org"]
    tax_line = "VAT ID XX123456789"
    number = "ST-{year}-{number:06}"
    locale = "en_GB"
    logo = "logo.svg"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.manuals import manual

LONGEST_FILE_BYTES = 2_000_000
_LONGEST_TEXT = 500
_MOST_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """Texts of the issuer. `number` is a format with {year}, {month} and {number}; `logo` a PNG, JPEG or SVG file."""

    name: str = ""
    address: tuple[str, ...] = ()
    contact: tuple[str, ...] = ()
    tax_line: str = ""
    footer: str = ""
    number: str = "{year}-{number:06}"
    locale: str = "en_US"
    paper: str = "a4"
    logo: Path | None = None

    def number_of(self, number: int, month: str) -> str:
        """Return the number of a statement as it is printed."""
        return self.number.format(year=month[:4], month=month[5:], number=number)


def read_letterhead(path: Path | None) -> Letterhead:
    """Read a letterhead file, or return an empty one; raises ConfigurationError for what it cannot use."""
    if path is None:
        return Letterhead()
    try:
        given = tomllib.loads(_text(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The letterhead {path} cannot be read: {error}.", f"See {manual('statements.md')}."
        ) from None
    known = {field.name for field in fields(Letterhead)}
    if unknown := sorted(given.keys() - known):
        raise ConfigurationError(
            f"The letterhead {path} has an unknown key: {unknown[0]}.",
            f"Known are {', '.join(sorted(known))}.",
        )
    values = {name: _value(path, name, value) for name, value in given.items()}
    letterhead = Letterhead(**values)
    _refuse_what_does_not_work(path, letterhead)
    return letterhead


def _text(path: Path) -> str:
    if path.stat().st_size > LONGEST_FILE_BYTES:
        raise ValueError("it is too large")
    return path.read_text(encoding="utf-8")


def _value(path: Path, name: str, value: object) -> Any:
    lines = name in ("address", "contact")
    texts = value if lines and isinstance(value, list) else [value]
    if len(texts) > _MOST_LINES or not all(
        isinstance(one, str) and len(one) <= _LONGEST_TEXT for one in texts
    ):
        expected = f"a list of at most {_MOST_LINES} texts" if lines else "a text"
        raise ConfigurationError(
            f"{name} in the letterhead {path} has to be {expected} of at most {_LONGEST_TEXT} characters."
        )
    if name == "logo":
        return path.parent / str(value)
    return tuple(texts) if lines else value


def _refuse_what_does_not_work(path: Path, letterhead: Letterhead) -> None:
    """Raise ConfigurationError before a thousand statements are written with it."""
    try:
        letterhead.number_of(1, "2026-11")
    except (KeyError, IndexError, ValueError, AttributeError):
        raise ConfigurationError(
            f"number in the letterhead {path} is no format: {letterhead.number!r}.",
            "Write it like ST-{year}-{number:06}; {month} is known too.",
        ) from None
    if letterhead.paper not in ("a4", "us-letter"):
        raise ConfigurationError(
            f"paper in the letterhead {path} is a4 or us-letter, not {letterhead.paper!r}."
        )
    logo = letterhead.logo
    if logo is None:
        return
    if logo.suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg"):
        raise ConfigurationError(f"The logo {logo} is no PNG, JPEG or SVG file.")
    if not logo.is_file() or logo.stat().st_size > LONGEST_FILE_BYTES:
        raise ConfigurationError(f"The logo {logo} is not there, or larger than 2 MB.")
