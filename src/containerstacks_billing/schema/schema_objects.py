"""The tables, functions and triggers that migrations leave behind, and how one that somebody dropped is made again.

They are read out of the migration files, so there is no second list that could say something else. What a migration
says about an object it says in statements of their own: create, alter, comment, revoke. All of them, in their order,
lead from nothing to the object as the last migration left it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from containerstacks_billing.schema.files import MigrationFile

Kind = Literal["table", "function", "trigger"]

# A semicolon ends a statement, unless it stands in a remark, a text or the body of a function.
_STATEMENT = re.compile(r"(?:--[^\n]*|'[^']*'|\$\$.*?\$\$|-(?!-)|\$(?!\$)|[^;'$-]++)+;", re.DOTALL)
_REMARKS_IN_FRONT = re.compile(r"(?:\s|--[^\n]*\n)*")
_ABOUT: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        "function",
        re.compile(
            r"(?:create or replace|alter|drop|comment on|revoke execute on) function (?:if exists )?(?P<name>\w+)"
        ),
    ),
    (
        "trigger",
        re.compile(
            r"(?:create|create or replace|create constraint|drop) trigger (?:if exists )?(?P<name>\w+)\b"
            r".*?\bon (?P<table>\w+)",
            re.DOTALL,
        ),
    ),
    (
        "table",
        re.compile(
            r"(?:create table if not exists|alter table|comment on table|comment on column|insert into"
            r"|create (?:unique )?index if not exists \w+ on) (?P<name>\w+)"
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class SchemaObject:
    """An object that has to be there; `table` is what a trigger stands on, and empty for anything else."""

    kind: Kind
    name: str
    table: str
    statements: tuple[str, ...]


def objects_of(migrations: Sequence[MigrationFile]) -> tuple[SchemaObject, ...]:
    """List what these migrations, one after the other, leave behind; each kind in the order of their making."""
    found: dict[tuple[Kind, str, str], list[str]] = {}
    for migration in migrations:
        for statement in _statements(migration.sql):
            _note(found, statement)
    return tuple(
        SchemaObject(kind, name, table, tuple(statements))
        for (kind, name, table), statements in found.items()
        if statements[0].startswith("create")
    )


def _statements(sql: str) -> Iterator[str]:
    for match in _STATEMENT.finditer(sql):
        yield match[0][_end_of_remarks(match[0]) :]


def _end_of_remarks(statement: str) -> int:
    match = _REMARKS_IN_FRONT.match(statement)
    return match.end() if match else 0


def _note(found: dict[tuple[Kind, str, str], list[str]], statement: str) -> None:
    for kind, pattern in _ABOUT:
        if about := pattern.match(statement):
            key = (kind, about["name"], about["table"] if kind == "trigger" else "")
            if statement.startswith("drop"):
                found.pop(key, None)
            else:
                found.setdefault(key, []).append(statement)
            return
