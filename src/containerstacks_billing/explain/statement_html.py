"""A statement as one HTML file that needs nothing from anywhere, for a browser and for its printer."""

from __future__ import annotations

import base64
import mimetypes
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateError

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.explain.letterhead import Letterhead
from containerstacks_billing.explain.statement_schema import Statement, fingerprint
from containerstacks_billing.explain.statement_view import Writer, view

TEMPLATE = Path(__file__).parent / "templates" / "statement.html"


def html(statement: Statement, letterhead: Letterhead, write: Writer, template: Path | None = None) -> str:
    """Return the page; raises ConfigurationError for a template that does not work.

    Everything from the books is escaped, also in a template of the hoster's own.
    """
    texts: dict[str, Any] = view(statement, letterhead, write, statement.sha256 or fingerprint(statement))
    chosen = template or TEMPLATE
    try:
        return _compiled(chosen).render(texts, logo=_logo(letterhead.logo))
    except TemplateError as error:
        raise ConfigurationError(f"The template {chosen} does not work: {error}.") from None


@cache
def _compiled(path: Path) -> Template:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The template {path} cannot be read: {error}.") from None
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(text)


@cache
def _logo(path: Path | None) -> str:
    """Return the logo as a data: address, so that the page is one file."""
    if path is None:
        return ""
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
