"""Statements written to files: JSON, CSV, HTML and PDF, each complete or not there at all."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.explain.letterhead import Letterhead
from containerstacks_billing.explain.statement_csv import write_csv
from containerstacks_billing.explain.statement_html import html
from containerstacks_billing.explain.statement_pdf import Press, press
from containerstacks_billing.explain.statement_schema import Statement
from containerstacks_billing.explain.statement_view import Writer, writer

Format = Literal["json", "csv", "html", "pdf"]
FORMATS: tuple[Format, ...] = ("json", "csv", "html", "pdf")


@dataclass(frozen=True, slots=True)
class Publisher:
    """What is needed to write statements in the chosen formats, made ready once for all of them."""

    letterhead: Letterhead
    write: Writer | None
    press: Press | None
    html_template: Path | None

    def contents(self, statement: Statement, form: Format) -> bytes:
        """Return a statement in a format."""
        if form == "json":
            return (json.dumps(statement.as_json(), indent=2, ensure_ascii=False) + "\n").encode()
        if form == "csv":
            text = io.StringIO(newline="")
            write_csv([statement], text)
            # A spreadsheet takes a file for UTF-8 by its first character.
            return text.getvalue().encode("utf-8-sig")
        if form == "pdf" and self.press is not None:
            return self.press.pdf(statement)
        if form == "html" and self.write is not None:
            return html(statement, self.letterhead, self.write, self.html_template).encode()
        raise RuntimeError(f"this publisher was not made for {form}")


@contextmanager
def publisher(
    formats: set[Format], letterhead: Letterhead, currency: str, timezone: str, template: Path | None = None
) -> Iterator[Publisher]:
    """Yield a publisher for these formats; a template is for HTML or PDF, as its name ends.

    Raises ConfigurationError where a library, the locale or the template is missing.
    """
    write = writer(letterhead, currency, timezone) if formats & {"html", "pdf"} else None
    is_typst = template is not None and template.suffix == ".typ"
    with ExitStack() as stack:
        made = None
        if "pdf" in formats and write is not None:
            made = stack.enter_context(press(letterhead, write, template if is_typst else None))
        yield Publisher(letterhead, write, made, None if is_typst else template)


def write_file(path: Path, contents: bytes) -> None:
    """Write a file as a whole: another of the same name is replaced when the new one is complete."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            place = Path(file.name)
            try:
                file.write(contents)
                file.flush()
                os.fchmod(file.fileno(), 0o640)
                place.replace(path)
            except BaseException:
                place.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise WorkFailed(f"{path} cannot be written: {error.strerror}.") from None
