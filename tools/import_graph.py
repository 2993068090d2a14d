"""Import graph of the package: circles of files, and the share of its lines that each room holds.

Every import counts: at the top, inside a function, and under TYPE_CHECKING. A circle that exists only for types, or
only when a verb runs, still means that none of its files can be read, moved or tested without the others.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

PACKAGE = "containerstacks_billing"
Graph = Mapping[str, set[str]]

# Circles that are known and still to be cut, each as the sorted names of its modules. Nothing may be added.
ALLOWED_CIRCLES: tuple[tuple[str, ...], ...] = ()
LARGEST_SHARE = 1 / 5
# Below this a share says nothing: a package of three files is no house.
SMALLEST_PACKAGE_LINES = 5_000


def circles(root: Path) -> Iterator[str]:
    """No file imports itself by way of others."""
    sources = root / "src"
    for members in strong_components(import_graph(sources)):
        if tuple(members) not in ALLOWED_CIRCLES:
            path = sources / f"{members[0].replace('.', '/')}.py"
            where = path if path.exists() else path.with_suffix("") / "__init__.py"
            yield f"{where.relative_to(root)}:1: a circle of imports: {', '.join(members)}"


def room_sizes(root: Path) -> Iterator[str]:
    """No room, a directory of the package, holds more than a fifth of the lines of Python and SQL."""
    lines = Counter[str]()
    for path in (p for p in (root / "src" / PACKAGE).rglob("*") if p.suffix in {".py", ".sql"}):
        lines[path.relative_to(root / "src" / PACKAGE).parts[0]] += len(path.read_text().splitlines())
    for room, count in lines.items():
        if lines.total() >= SMALLEST_PACKAGE_LINES and count > lines.total() * LARGEST_SHARE:
            share = f"{count / lines.total():.0%} of the lines, of at most {LARGEST_SHARE:.0%}"
            yield f"src/{PACKAGE}/{room}:1: the room holds {share}"


def import_graph(sources: Path) -> dict[str, set[str]]:
    """Return which module of the package imports which; a package stands for its __init__.py."""
    paths = {_module(path, sources): path for path in sorted((sources / PACKAGE).rglob("*.py"))}
    return {
        module: {name for name in _imported(ast.parse(path.read_text()), paths.keys()) if name != module}
        for module, path in paths.items()
    }


def strong_components(graph: Graph) -> list[list[str]]:
    """Return the sets of modules that all reach each other, sorted, without those of one; Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            position = stack.index(module)
            members = sorted(stack[position:])
            del stack[position:]
            if len(members) > 1:
                found.append(members)

    for module in graph:
        if module not in index:
            visit(module)
    return sorted(found)


def _module(path: Path, sources: Path) -> str:
    parts = path.relative_to(sources).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.AST, modules: Container[str]) -> Iterator[str]:
    """Yield the modules that a file names; `from room import name` is room.name where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in modules:
                    yield name
                elif node.module in modules:
                    yield node.module
