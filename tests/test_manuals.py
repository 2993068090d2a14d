"""Paths of documents in messages: each exists on the machine that prints it."""

from __future__ import annotations

import ast
from pathlib import Path

from containerstacks_billing import manuals
from containerstacks_billing.hosts.model import Host

SOURCES = Path(manuals.__file__).parent


def texts(tree: ast.Module) -> list[str]:
    """Strings of a module that are not docstrings."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, described)
    }
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [text for text in constants if isinstance(text, str) and text not in docstrings]


def test_every_document_that_a_message_names_exists() -> None:
    """As an absolute path, whichever directory the command was called in."""
    called = [
        str(ast.literal_eval(node.args[0]))
        for file in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "manual"
        and isinstance(node.args[0], ast.Constant)
    ]
    named = [manuals.manual(name) for name in called] + [host.document for host in Host if host.document]
    assert {"billing-daemon.md", "statements.md", "containerstacks.md", "skypanelv2.md"} <= {
        Path(path).name for path in named
    }
    assert [] == [path for path in named if not (Path(path).is_absolute() and Path(path).exists())]


def test_no_message_names_a_document_by_a_path_of_the_repository() -> None:
    """`docs/…` leads nowhere from another directory than a checkout's."""
    files = [file for file in SOURCES.rglob("*.py") if file.name != "manuals.py"]
    named = {
        file.name: [t for t in texts(ast.parse(file.read_text())) if " docs/" in t or "(docs/" in t]
        for file in files
    }
    assert {} == {file: found for file, found in named.items() if found}


def test_an_installation_names_its_own_copy(tmp_path: Path) -> None:
    """The environment's copy where no checkout is around; the repository's name where neither has it."""
    copy = tmp_path / "share/doc/containerstacks-billing/docs/statements.md"
    copy.parent.mkdir(parents=True)
    copy.touch()
    place = tmp_path / "lib/python3/site-packages/containerstacks_billing"
    assert str(copy) == manuals.manual("statements.md", package=place, environment=str(tmp_path))
    assert "docs/runbook.md" == manuals.manual("runbook.md", package=place, environment=str(tmp_path))
