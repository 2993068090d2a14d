"""Check what no other tool checks: taste that nothing enforces decays.

Each check reads the tree and yields one line per finding, `path:line: what is wrong`. CHECKS names them all, in the
order in which they run.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools import import_graph, retired_words

LONGEST_MODULE_LINES = 350
PACKAGE = "src/containerstacks_billing"
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

# Words in names that mean what another word already means; see GLOSSARY.md. Only those without an honest second use.
WORDS = {
    "chunk": "batch",
    "fee": "charge",
    "job": "run or batch",
    "leader": "holder",
    "movement": "ledger entry",
    "overdue": "past_due",
    "ping": "heartbeat",
    "secondary": "built_in_billing",
    "tariff": "hourly_rate",
    "vm": "instance",
}
NAMES_OF_NOTHING = {"utils", "helpers", "common", "manager", "service", "misc"}
OTHER_CLOCKS = re.compile(
    r"\b(now\(\)|current_timestamp|localtimestamp|(statement|transaction)_timestamp\(\))", re.IGNORECASE
)
# What only the host has, in its word: a debit of the host is no charge of ours.
WORDS_OF_THE_HOST = {"creation_fee"}
# The lease is about the database's own time, and the doctor compares clocks.
OWN_CLOCK = ("lease", "inspect")
DOWNLOAD_OPTIONS = re.compile(r"--(extra-)?index-url|--find-links|--trusted-host")


def module_lengths(root: Path) -> Iterator[str]:
    """No module is longer than a reader's patience, and its name says what it holds."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        lines = len(path.read_text().splitlines())
        if lines > LONGEST_MODULE_LINES:
            yield f"{path.relative_to(root)}:1: {lines} lines, of at most {LONGEST_MODULE_LINES}"
        if path.stem in NAMES_OF_NOTHING and path.parent.name != "cli":  # a verb is called like its command
            yield f"{path.relative_to(root)}:1: the name {path.stem} says nothing about what is inside"


def glossary_words(root: Path) -> Iterator[str]:
    """Names in the package use the glossary's word for a concept."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        for name, line in sorted(_defined_names(ast.parse(path.read_text()))):
            if name in WORDS_OF_THE_HOST:
                continue
            for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name):
                meant = WORDS.get(word.lower().removesuffix("s")) or WORDS.get(word.lower())
                if meant:
                    yield f"{path.relative_to(root)}:{line}: {name}: our word for {word.lower()} is {meant}"


def sql_statements(root: Path) -> Iterator[str]:
    """Every named statement is snake_case, says what it does and is used; every part is included somewhere."""
    used = "\n".join(path.read_text() for path in (root / PACKAGE).rglob("*.py"))
    files = _statement_files(root)
    text = {path: path.read_text() for path in files}
    included = {
        part.strip()
        for content in text.values()
        for listed in re.findall(r"^-- include: (.+)$", content, re.MULTILINE)
        for part in listed.split(",")
    }
    for path, content in text.items():
        lines = content.splitlines()
        for number, line in enumerate(lines, start=1):
            heading = re.fullmatch(r"-- *(name|part): *(.*)", line)
            if heading is None:
                continue
            kind, name = heading[1], heading[2]
            where = f"{path.relative_to(root)}:{number}: {name}"
            described = lines[number] if number < len(lines) else ""
            if SNAKE_CASE.fullmatch(name) is None:
                yield f"{where}: the name is not snake_case"
            if re.fullmatch(r"-- \S.*", described) is None:
                yield f"{where}: the line below it does not say what it does"
            if kind == "name" and f'"{name}"' not in used:
                yield f"{where}: nothing uses this statement"
            if kind == "part" and name not in included:
                yield f"{where}: no statement includes this part"


def one_clock(root: Path) -> Iterator[str]:
    """Statements read the time through billing_clock(), Python through Clock; the lease has the database's own."""
    for path in _statement_files(root):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            code = line.split("--")[0]
            own_clock = "clock_timestamp()" in code and not path.stem.startswith(OWN_CLOCK)
            if OTHER_CLOCKS.search(code) or own_clock:
                yield f"{path.relative_to(root)}:{number}: the time comes from billing_clock() or as an argument"
    for path in sorted((root / PACKAGE).rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if path.name != "clock.py" and re.search(r"\b(date|datetime|time)\.(now|utcnow|today)\(", line):
                yield f"{path.relative_to(root)}:{number}: time of this host comes from Clock (clock.py)"


def migration_names(root: Path) -> Iterator[str]:
    """Migrations are numbered once each and open with a comment that says why."""
    numbers: dict[str, str] = {}
    for path in sorted((root / PACKAGE / "schema" / "tables").glob("*.sql")):
        where = f"{path.relative_to(root)}:1"
        if re.fullmatch(r"\d{3}_[a-z0-9_]+\.sql", path.name) is None:
            yield f"{where}: a migration is called like 014_runs.sql"
        if path.name[:3] in numbers:
            yield f"{where}: {numbers[path.name[:3]]} has this number already"
        numbers[path.name[:3]] = path.name
        if not path.read_text().startswith("--"):
            yield f"{where}: it opens without a comment that says why"


def tests_that_sleep(root: Path) -> Iterator[str]:
    """A test waits for a condition, never for time: no sleep, and no wait until a clock has passed an instant."""
    for path in sorted((root / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_sleep(node):
                yield f"{path.relative_to(root)}:{node.lineno}: a test that sleeps is slow, and wrong on a busy machine"


def independent_reference(root: Path) -> Iterator[str]:
    """The reference model stands on the standard library alone: what it shared with the product it could not judge."""
    for path in sorted((root / "tests" / "reference").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = ["." * node.level + (node.module or "")]
            for name in names:
                inside = name.startswith("tests.reference")
                if not inside and name.split(".")[0] not in sys.stdlib_module_names:
                    yield f"{path.relative_to(root)}:{node.lineno}: the reference model may not import {name}"


def places_in_the_model(root: Path) -> Iterator[str]:
    """A comment of the model like `fence in charging.sql` names a statement or a function that is there."""
    files = [path for path in (root / PACKAGE).rglob("*") if path.suffix in (".py", ".sql")]
    sources: dict[str, str] = {}
    for path in files:
        sources[path.name] = sources.get(path.name, "") + path.read_text()
    for path in sorted((root / "tests" / "model").glob("*.pml")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for names, file in re.findall(r"((?:\w+(?:, | and ))*\w+) in (\w+\.(?:sql|py))", line):
                text = sources.get(file, "")
                for name in re.split(r", | and ", names):
                    here = (
                        rf"^(-- (name|part): {name}|{name} =)$|^{name} = |\bdef {name}\(|\bfunction {name}\("
                    )
                    if not re.search(here, text, re.MULTILINE):
                        yield f"{path.relative_to(root)}:{number}: there is no {name} in {file}"


def tests_that_say_nothing(root: Path) -> Iterator[str]:
    """The docstring of a test is a sentence: what holds, and why it matters."""
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            if not ast.get_docstring(node):
                yield f"{path.relative_to(root)}:{node.lineno}: {node.name} has no sentence"


def rooms_in_the_map(root: Path) -> Iterator[str]:
    """Every room stands in the map of ARCHITECTURE.md."""
    text = (root / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"[a-z_]+", text.split("```")[1]))
    for room in sorted((root / PACKAGE).glob("*/__init__.py")):
        if room.parent.name not in named:
            yield f"ARCHITECTURE.md:1: the room {room.parent.name} is missing in the map of rooms"


def addresses(root: Path) -> Iterator[str]:
    """No file carries the address of a download host or a path of the machine that it was written on."""
    machine = re.compile("|".join(re.escape(place) for place in (f"{root}/", f"{Path.home()}/.")))
    for path in _tracked_files(root):
        try:
            lines = path.read_text().splitlines()
        except (UnicodeDecodeError, OSError):
            continue
        for number, line in enumerate(lines, start=1):
            where = f"{path.relative_to(root)}:{number}"
            if machine.search(line):
                yield f"{where}: a path of one machine"
            if path.suffix == ".lock" and ("://" in line or DOWNLOAD_OPTIONS.search(line)):
                yield f"{where}: the lock names where to download from; mirrors could not serve it"


CHECKS = (
    module_lengths,
    import_graph.circles,
    import_graph.room_sizes,
    glossary_words,
    retired_words.retired_words,
    sql_statements,
    one_clock,
    migration_names,
    tests_that_sleep,
    independent_reference,
    places_in_the_model,
    tests_that_say_nothing,
    rooms_in_the_map,
    addresses,
)


def _is_sleep(call: ast.Call) -> bool:
    name = ast.unparse(call.func).rpartition(".")[2]
    waits = name in {"eventually", "until", "when"} and call.args and isinstance(call.args[0], ast.Lambda)
    return name == "sleep" or bool(
        waits and re.search(r"\b(monotonic|perf_counter|time)\(\)", ast.unparse(call.args[0]))
    )


def _defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def _statement_files(root: Path) -> list[Path]:
    """The SQL files of the rooms; those of the schema and of the drill hold no named statements."""
    return [p for p in sorted((root / PACKAGE).glob("*/*.sql")) if p.parent.name not in {"drill", "schema"}]


def _tracked_files(root: Path) -> list[Path]:
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [root / name for name in sorted(listed.split("\0")) if name]


def main(root: Path) -> int:
    """Print every finding; return 1 when there is one."""
    findings = [finding for check in CHECKS for finding in check(root)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
