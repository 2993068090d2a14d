"""Books that many tests verify: made once per worker, and a copy of them for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.books import Books, varied_books
from tests.fleet import Fleet


@pytest.fixture(scope="module")
def kept_books(server: str, template: str, worker_id: str) -> Iterator[tuple[Books, str]]:
    """The books with a varied history, and the name of their database."""
    name = f"{template.rsplit('_template_', 1)[0]}_books_{worker_id}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"')
        with psycopg.connect(make_conninfo(server, dbname=name), autocommit=True) as conn:
            books = varied_books(conn)
        yield books, name
        admin.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def books(kept_books: tuple[Books, str], make_database: Callable[[str], str]) -> Iterator[Books]:
    """A copy of the books for one test."""
    kept, name = kept_books
    with psycopg.connect(make_database(name), autocommit=True) as conn:
        yield replace(kept, fleet=Fleet(conn, at=kept.fleet.now))
