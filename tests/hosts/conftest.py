"""The two hosts, each on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.hosts.life import ContainerStacks, Successor


@pytest.fixture
def host_connection(empty_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to an empty database, in UTC."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("set time zone 'UTC'")
        yield connection


@pytest.fixture
def containerstacks(host_connection: psycopg.Connection[Any]) -> ContainerStacks:
    """ContainerStacks before adoption."""
    return ContainerStacks(host_connection)


@pytest.fixture
def successor(host_connection: psycopg.Connection[Any]) -> Successor:
    """skypanelv2 before adoption."""
    return Successor(host_connection)
