"""A statement as PDF, typeset by Typst.

The texts reach the template as JSON, so nothing in a name or a label can be markup. The same statement gives the same
bytes: the date in the file is that of the statement, not of the moment in which it was written.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.explain.letterhead import Letterhead
from containerstacks_billing.explain.statement_schema import Statement, fingerprint
from containerstacks_billing.explain.statement_view import INSTALL_PDF, Writer, view

TEMPLATE = Path(__file__).parent / "templates" / "statement.typ"


@dataclass(frozen=True, slots=True)
class Press:
    """A template that is ready to typeset; it may be used for many statements."""

    compiler: Any
    letterhead: Letterhead
    write: Writer
    logo: str

    def pdf(self, statement: Statement) -> bytes:
        """Return the PDF; raises ConfigurationError for a template that does not work."""
        import typst  # noqa: PLC0415

        texts = view(statement, self.letterhead, self.write, statement.sha256 or fingerprint(statement))
        texts["logo"] = self.logo
        dated = statement.issued_at or statement.ends_at
        try:
            pdf: bytes = self.compiler.compile(
                format="pdf", sys_inputs={"statement": json.dumps(texts)}, timestamp=int(dated.timestamp())
            )
        except typst.TypstError as error:
            raise ConfigurationError(f"The template does not work: {error}") from None
        return pdf


@contextmanager
def press(letterhead: Letterhead, write: Writer, template: Path | None = None) -> Iterator[Press]:
    """Yield a press; raises ConfigurationError where Typst is not installed or the template cannot be read.

    Typst reads files below the folder of the template only, so template and logo are copied into one of their own.
    """
    try:
        import typst  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "PDF needs a library that is not installed.",
            INSTALL_PDF,
        ) from None
    with tempfile.TemporaryDirectory(prefix="containerstacks-statements-") as folder:
        place = Path(folder) / "statement.typ"
        try:
            shutil.copyfile(template or TEMPLATE, place)
        except OSError as error:
            raise ConfigurationError(f"The template {template} cannot be read: {error}.") from None
        logo = ""
        if letterhead.logo is not None:
            logo = f"logo{letterhead.logo.suffix.lower()}"
            shutil.copyfile(letterhead.logo, Path(folder) / logo)
        yield Press(typst.Compiler(str(place), root=folder), letterhead, write, logo)
