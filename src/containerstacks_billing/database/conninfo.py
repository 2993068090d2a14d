"""Parsing, validation and description of connection strings, without exposing secrets.

The driver quotes a malformed connection string in its message, and a password with an unescaped `/` or `@`
ends up in the port or the host and is quoted from there. So a string is checked here before the driver
connects with it, and what we say about it is composed from its checked parts.

The string comes from the host application's file and was written for a Node.js driver. Parameters that only
such a driver knows (`schema`, `connection_limit`, ...) are left out and named in a warning instead of
refused.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from containerstacks_billing.errors import ConfigurationError

_URL = re.compile(r"postgres(ql)?://", re.IGNORECASE)
_HOST = re.compile(r"[\w.:%-]*|[/@][^\s:@?#]*", re.ASCII)
# By these names the drivers of other languages choose a schema. To ignore them would bill another one.
_SCHEMA_PARAMETERS = frozenset({"schema", "search_path", "currentSchema"})
_PORT = re.compile(r"[0-9]{0,5}")


@dataclass(frozen=True)
class Conninfo:
    """A connection string that the driver accepts; `warnings` holds no secret, `text` does."""

    text: str
    parameters: dict[str, str]
    warnings: tuple[str, ...]


@cache
def _known_parameters() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults()) | {"ssl"}


def _without_foreign_parameters(url: str) -> tuple[str, list[str]]:
    """Leave out URL parameters that the driver does not know; return the URL and a warning for each."""
    base, mark, query = url.rpartition("?")
    if not mark or "@" in query or not re.fullmatch(r"([\w.-]+=[^&=]*)(&[\w.-]+=[^&=]*)*", query):
        return url, []
    kept, warnings = [], []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name in _SCHEMA_PARAMETERS and unquote(value).strip('"') != "public":
            raise ConfigurationError(
                f"The parameter {name} of DATABASE_URL names another schema than public, where billing does not look:"
                " the tables of ContainerStacks live in public.",
                hint=f"Remove {name}=… where the tables are in public; tables in another schema cannot be billed.",
            )
        if name == "sslmode" and unquote(value) == "no-verify":
            kept.append("sslmode=require")
            warnings.append("sslmode=no-verify of DATABASE_URL is read as sslmode=require.")
        elif name in _known_parameters():
            kept.append(part)
        else:
            warnings.append(
                f"The parameter {name} of DATABASE_URL means nothing to PostgreSQL and is ignored."
            )
    return (f"{base}?{'&'.join(kept)}" if kept else base), warnings


def _malformed(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"DATABASE_URL is malformed: {what}.",
        hint="Write postgresql://user:password@host:5432/database with special characters of the password "
        "percent-encoded (@ is %40, / is %2F, # is %23, % is %25).",
    )


def read(text: str) -> Conninfo:
    """Check a connection string, URL or key=value pairs, and return it ready for the driver.

    Raises ConfigurationError, which never quotes any part of the string.
    """
    warnings: list[str] = []
    text = text.strip()
    if _URL.match(text):
        text, warnings = _without_foreign_parameters(text)
    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(text).items() if value is not None}
    except (psycopg.Error, UnicodeError, ValueError):
        raise _malformed("it is neither a PostgreSQL URL nor key=value pairs") from None
    if not all(_PORT.fullmatch(port) for port in parameters.get("port", "").split(",")):
        raise _malformed("its port is not a number, as happens when a password holds an unescaped /")
    for name in ("host", "hostaddr"):
        if not all(_HOST.fullmatch(host) for host in parameters.get(name, "").split(",")):
            raise _malformed("its host is not a host name, as happens when a password holds an unescaped @")
    return Conninfo(make_conninfo("", **parameters), parameters, tuple(warnings))


def _places(parameters: dict[str, str]) -> list[tuple[str, str]]:
    """Pair hosts with ports; one port serves all hosts."""
    hosts = (parameters.get("host") or parameters.get("hostaddr") or "localhost").split(",")
    ports = (parameters.get("port") or "5432").split(",")
    if len(ports) != len(hosts):
        ports = [ports[0]] * len(hosts)
    return [(host or "localhost", port or "5432") for host, port in zip(hosts, ports, strict=True)]


def describe(conninfo: str) -> str:
    """Name the database of a connection string for people: `billing@db1:5432,db2:5432/containerstacks`.

    Never raises and never holds a password; a string that cannot be read is "a malformed connection string".
    """
    try:
        parameters = read(conninfo).parameters
    except ConfigurationError:
        return "a malformed connection string"
    places = ",".join(
        f"[{host}]"
        if host.startswith(("/", "@"))
        else f"[{host}]:{port}"
        if ":" in host
        else f"{host}:{port}"
        for host, port in _places(parameters)
    )
    user = parameters.get("user", "")
    database = parameters.get("dbname") or user
    return f"{user}@{places}/{database}" if user else f"{places}/{database}"


def _is_local(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def transport_warning(conninfo: str) -> str | None:
    """Return a warning when the connection could be read or changed in transit; None when it is safe."""
    parameters = read(conninfo).parameters
    far = [host for host, _ in _places(parameters) if not _is_local(host)]
    mode = parameters.get("sslmode") or "prefer"
    if not far or mode == "verify-full":
        return None
    return (
        f"The connection to {', '.join(far)} uses sslmode={mode}, which does not prove who answers; "
        "add sslmode=verify-full and sslrootcert=... to DATABASE_URL."
    )
