"""Choice of the database for a verb: DATABASE_URL, else the embedded one that `up` made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from containerstacks_billing.database.connection import connect
from containerstacks_billing.database.conninfo import read
from containerstacks_billing.errors import ConfigurationError, DatabaseUnavailable
from containerstacks_billing.sandbox.server import EmbeddedServer, default_directory
from containerstacks_billing.settings import Settings

EMBEDDED_DATABASE = "containerstacks"


@dataclass(frozen=True)
class Target:
    """A database to work on. `conninfo` may hold a password; show `describe(conninfo)` instead."""

    conninfo: str
    embedded: bool


def _announce(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def target(
    settings: Settings,
    *,
    embedded_allowed: bool = True,
    announce: Callable[[str], None] = _announce,
    announce_started: Callable[[str], None] = _announce,
) -> Target:
    """Return the database of DATABASE_URL, else the embedded one, started if need be and announced by `announce`.

    A server that had to be started goes on running, which is announced by `announce_started`: other commands may use it
    before this one ends, so only a person can decide when it stops.
    Raises ConfigurationError where there is neither, or no DATABASE_URL for a verb that has to have it.
    """
    if settings.database_url is not None:
        return Target(read(settings.database_url.get_secret_value()).text, embedded=False)
    if not embedded_allowed:
        raise ConfigurationError(
            "DATABASE_URL is not set.",
            hint="Set it in the environment or in the host application's .env: "
            "DATABASE_URL=postgresql://user:password@localhost:5432/containerstacks",
        )
    server = EmbeddedServer(default_directory())
    status = server.status()
    if status.version is None:
        raise _no_database()
    server.start()
    if not status.running:
        announce_started(
            f"The embedded database in {server.directory} was started and goes on; "
            "`containerstacks-billing db stop` stops it."
        )
    if not embedded_database_exists(server):
        raise _no_database()
    announce(f"DATABASE_URL is not set: using the embedded database in {server.directory}")
    return Target(server.conninfo(EMBEDDED_DATABASE), embedded=True)


def made_embedded(announce: Callable[[str], None] = _announce) -> Target:
    """Return the embedded database, its server started and the database created where they are missing.

    DATABASE_URL is never read: the caller is about to create data.
    """
    server = EmbeddedServer(default_directory())
    with connect(server.start(), purpose="maintenance") as connection:
        version = connection.info.parameter_status("server_version")
        # Another `up` may be creating it at this moment, which PostgreSQL reports in two ways.
        with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(EMBEDDED_DATABASE)))
    announce(f"PostgreSQL {version} in {server.directory}, for trying and not for production")
    return Target(server.conninfo(EMBEDDED_DATABASE), embedded=True)


def embedded_database_exists(server: EmbeddedServer) -> bool:
    """Whether `up` made its database on this running server."""
    try:
        connect(server.conninfo(EMBEDDED_DATABASE), purpose="reading").close()
    except DatabaseUnavailable:
        return False
    return True


def _no_database() -> ConfigurationError:
    return ConfigurationError(
        "DATABASE_URL is not set, and there is no embedded database.",
        hint="Set DATABASE_URL in the host application's .env, or make a demo with `containerstacks-billing up`.",
    )
