"""Small wrong changes to the billing core, one at a time: the meaning in Python, the charging in SQL.

A change is a text for a text at a place. In Python it is found by the grammar; in SQL by words and signs, since no
grammar of it is at hand, with the few places left out where the sign means something else. Libraries for Python alone
would have brought an editor, a database and a web client into the lock; none knows SQL, where the core is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "src/containerstacks_billing"
MEANING = ("money", "brake", "run", "failover", "schedule", "standing", "health", "prices", "events")
# Of the migrations only the functions that rate, meter and name, each in the last file that defines it.
FUNCTIONS = (
    "billing_usable_price",
    "billing_begin_of_price",
    "billing_record_price",
    "billing_judge_segment",
    "billing_stretch_end",
    "billing_move_watermark",
    "billing_begin_metering",
    "billing_begin_metering_late",
    "billing_is_price_recorded",
    "billing_sync_prices",
    "billing_date_price",
    "billing_segments_of",
    "billing_spill_stretches",
    "billing_keep_stretches",
    "billing_close_deleted",
    "billing_amount",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One wrong change: the file below the root, where in it, what stood there, what stands there instead."""

    path: str
    start: int
    end: int
    before: str
    after: str
    line: int
    around: str

    @property
    def key(self) -> str:
        """Name it by what it does and not by its line, so that the name outlives changes elsewhere."""
        return f"{Path(self.path).name}: {self.before or '∅'} → {self.after or '∅'} in: {self.around}"

    def apply(self, root: Path) -> None:
        """Make the change in a copy of the sources."""
        file = root / self.path
        text = file.read_text()
        file.write_text(text[: self.start] + self.after + text[self.end :])


def python_changes(root: Path) -> Iterator[Change]:
    """Yield the changes of the modules that hold the meaning."""
    for module in MEANING:
        path = f"{PACKAGE}/billing/{module}.py"
        text = (root / path).read_text()
        starts = [0]
        for line in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line.encode()))
        encoded = text.encode()
        tree = ast.parse(text)
        skipped = _annotations_and_docstrings(tree)
        for node in ast.walk(tree):
            if id(node) in skipped or not isinstance(node, ast.expr):
                continue
            for changed in _wrong(node):
                start = starts[node.lineno - 1] + node.col_offset
                end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
                before = encoded[start:end].decode()
                place = len(encoded[:start].decode())
                yield Change(
                    path,
                    place,
                    place + len(before),
                    " ".join(before.split()),
                    f"({ast.unparse(changed)})",
                    node.lineno,
                    text.splitlines()[node.lineno - 1].strip(),
                )


_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


def _wrong(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=others) if type(operator) in _COMPARISONS:
            yield ast.Compare(left, [_COMPARISONS[type(operator)]()], others)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            yield ast.BinOp(left, _OPERATORS[type(operator)](), right)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for number in range(len(values)):
                rest = values[:number] + values[number + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=args, keywords=keywords):
            yield ast.Call(ast.Name("max" if name == "min" else "min"), args, keywords)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)


def _annotations_and_docstrings(tree: ast.AST) -> set[int]:
    """What is written for readers and types, and decorators: nothing there changes what happens."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.AnnAssign | ast.arg):
            parts.append(node.annotation)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts += node.decorator_list
        if isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        for part in parts:
            if part is not None:
                skipped |= {id(inner) for inner in ast.walk(part)}
    return skipped


_SIGNS: tuple[tuple[str, str], ...] = (
    (r"(?<= )<=(?= )", "<"),
    (r"(?<= )>=(?= )", ">"),
    (r"(?<= )<(?= )", "<="),
    (r"(?<= )>(?= )", ">="),
    (r"(?<= )<>(?= )", "="),
    (r"(?<= )=(?= )", "<>"),
    (r"(?<= )\+(?= )", "-"),
    (r"(?<= )-(?= )", "+"),
    (r"\bgreatest(?=\()", "least"),
    (r"\bleast(?=\()", "greatest"),
    (r"\bmin(?=\()", "max"),
    (r"\bmax(?=\()", "min"),
    (r"\bceil(?=\()", "floor"),
    (r"\bfloor(?=\()", "ceil"),
    (r"\btrunc(?=\()", "round"),
    (r"\bnot exists\b", "exists"),
    (r"\bis null\b", "is not null"),
    (r"\bis not null\b", "is null"),
    (r"\bis distinct from\b", "is not distinct from"),
    (r"\bis not distinct from\b", "is distinct from"),
    (r"\bleft join\b", "join"),
    (r"\bfor (no key )?update\b|\bfor (key )?share\b", ""),
    (r"(?<= )desc\b", ""),
    (r"(?<=distinct )on \(\w+\)", ""),
    (r"\bdistinct (?=\w)(?!on\b|from\b)", ""),
    (r"\b(?<![.\w])(?<!'billing-)\d+(?![\w.])", "+1"),
)
_CONJUNCT = re.compile(r"^\s*(and )(?P<rest>.+?)(?=;?$)")
_ASSIGNS = re.compile(
    r"\b(set|where|on|and|or|when|having|select|from|values|if|elsif|case)\b|:=", re.IGNORECASE
)


def sql_changes(root: Path) -> Iterator[Change]:
    """Yield the changes of the charging statements and of the functions that rate and meter."""
    path = f"{PACKAGE}/postgres/queries/charging.sql"
    text = (root / path).read_text()
    yield from _in_sql(path, text, 0, len(text))
    migrations = sorted((root / PACKAGE / "postgres" / "migrations").glob("*.sql"))
    for function in FUNCTIONS:
        heading = f"create or replace function {function}("
        file = next(file for file in reversed(migrations) if heading in file.read_text())
        text = file.read_text()
        start = text.index(heading)
        begins = text.index("$$", start)
        end = text.find("$$;", begins + 2)
        yield from _in_sql(str(file.relative_to(root)), text, begins, end if end > 0 else len(text))


def _in_sql(path: str, text: str, start: int, end: int) -> Iterator[Change]:
    place = start
    for line in text[start:end].splitlines(keepends=True):
        number = text.count("\n", 0, place) + 1
        around = line.strip()
        if not around.startswith("--"):
            code = _blank_strings(line)
            for pattern, after in _SIGNS:
                for match in re.finditer(pattern, code):
                    if pattern == r"(?<= )=(?= )" and _is_assignment(text[start : place + match.start()]):
                        continue
                    changed = str(int(match[0]) + 1) if after == "+1" else after
                    yield Change(
                        path, place + match.start(), place + match.end(), match[0], changed, number, around
                    )
            yield from _connectives(path, place, code, number, around)
        place += len(line)


def _connectives(path: str, place: int, code: str, number: int, around: str) -> Iterator[Change]:
    for match in re.finditer(r"\b(and|or)\b", code):
        if match[0] == "and" and re.search(r"\bbetween\b(?!.*\band\b)", code[: match.start()]):
            continue
        after = "or" if match[0] == "and" else "and"
        yield Change(path, place + match.start(), place + match.end(), match[0], after, number, around)
    conjunct = _CONJUNCT.search(code.rstrip("\n"))
    if conjunct and conjunct["rest"].count("(") == conjunct["rest"].count(")"):
        start, end = place + conjunct.start(1), place + conjunct.end("rest")
        yield Change(path, start, end, "this condition", "", number, around)


def _blank_strings(line: str) -> str:
    """Blank what stands in quotes, parameters and a comment at the end; every place stays where it is."""
    blanked = re.sub(r"'[^']*'|%\(\w+\)s(::[\w\[\]]+)?", lambda match: "_" * len(match[0]), line)
    return re.sub(r"--.*", lambda match: " " * len(match[0]), blanked)


def _is_assignment(before: str) -> bool:
    words = [match[0].lower() for match in _ASSIGNS.finditer(_blank_strings(before[-2000:]))]
    return bool(words) and words[-1] == "set"
