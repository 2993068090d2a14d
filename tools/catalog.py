"""Write the schema on one page: the catalog of an empty database and of an adopted host after `migrate`.

    ./dev catalog --write    write the two files
    ./dev catalog            show what differs from them; exit code 1 if anything does

`schema/catalog.txt` is part of the program, which compares databases with it. `tests/schema/adopted_catalog.txt` holds
what an adopted host has instead (`-` a line of the first, `+` a line of its own).
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from containerstacks_billing import schema
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.catalog import read_catalog
from containerstacks_billing.schema.migrator import apply_pending

ROOT = Path(__file__).parent.parent
# Of the package that is imported, which is another one where a bug is planted in a copy.
FRESH = Path(schema.__file__).parent / "catalog.txt"
ADOPTED = ROOT / "tests" / "schema" / "adopted_catalog.txt"
HOST = ROOT / "tests" / "schema" / "legacy.sql"


def main() -> int:
    """Write or compare; return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev catalog", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    parser.add_argument("--fresh", action="store_true", help="only schema/catalog.txt")
    options = parser.parse_args()
    fresh, adopted = catalogs()
    texts = {FRESH: "".join(f"{line}\n" for line in fresh), ADOPTED: difference(fresh, adopted)}
    differs = False
    if options.fresh:
        del texts[ADOPTED]
    for path, text in texts.items():
        before = path.read_text() if path.exists() else ""
        shown = list(
            difflib.unified_diff(before.splitlines(True), text.splitlines(True), path.name, "now", n=0)
        )
        differs |= bool(shown)
        sys.stdout.writelines(shown)
        if options.write:
            path.write_text(text)
    return int(differs and not options.write)


def catalogs() -> tuple[list[str], list[str]]:
    """Return the catalog of an empty database after migrate, and of a ContainerStacks host."""
    with tempfile.TemporaryDirectory(prefix="containerstacks-catalog-") as directory:
        server = EmbeddedServer(Path(directory))
        conninfo = server.start()
        try:
            return _migrated(conninfo, "fresh", ""), _migrated(conninfo, "adopted", HOST.read_text())
        finally:
            server.stop()


def difference(fresh: list[str], adopted: list[str]) -> str:
    """Return what the second has instead of lines of the first, apart from the host's function for identifiers."""
    lines = sorted(set(fresh) ^ set(adopted))
    return "".join(
        f"{'-' if line in fresh else '+'} {line}\n"
        for line in lines
        if "function uuid_generate_v4" not in line
    )


def _migrated(conninfo: str, name: str, before: str) -> list[str]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    database = make_conninfo(conninfo, dbname=name)
    with psycopg.connect(database, autocommit=True) as connection:
        if before:
            connection.execute(before.encode())
        apply_pending(database)
        return read_catalog(connection)


if __name__ == "__main__":
    sys.exit(main())
