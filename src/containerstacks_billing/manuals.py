"""Paths of the documents that messages and hints name, as they are on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def manual(name: str, *, package: Path = _PACKAGE, environment: str = sys.prefix) -> str:
    """Return the path of a document below docs: in the checkout that runs, else in the environment of the installation.

    Where neither has it, as after an installation without data files, the name by which the repository has it.
    """
    for place in (package.parents[1], Path(environment) / "share" / "doc" / "containerstacks-billing"):
        if (path := place / "docs" / name).exists():
            return str(path)
    return f"docs/{name}"
