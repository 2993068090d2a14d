"""Report for support: a tarball of findings, configuration, versions, last runs and query plans, without secrets.

Every file passes through the redaction of the logs, with the secret values of this configuration known to it. Plans
are those of the statements of a run for values that are not known, so no value of a customer is in them.
"""

from __future__ import annotations

import io
import json
import platform
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from psycopg import errors
from psycopg.rows import dict_row

from containerstacks_billing.clock import Clock
from containerstacks_billing.config import load as configuration
from containerstacks_billing.config import target
from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.database.statements import ask, query
from containerstacks_billing.document import Document
from containerstacks_billing.errors import BillingError, WorkFailed
from containerstacks_billing.findings import Finding
from containerstacks_billing.redaction import redactor
from containerstacks_billing.schema import migrator
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.schemas import MigrationDocument
from containerstacks_billing.settings import KEYS
from containerstacks_billing.status.read import read_status, recent_runs
from containerstacks_billing.status.schemas import RunList, StatusDocument
from containerstacks_billing.version import __version__

_RUNS = 50
# What a run spends its time in; each has its plan in the report.
_PLANNED = (
    "read_fleet",
    "lock_wallets",
    "charge",
    "pay_past_due",
    "write_quarantine",
    "quarantined_instances",
)
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")

Section = tuple[str, Any]


def write_report(path: Path, flags: Mapping[str, str | None], findings: Sequence[Finding]) -> list[str]:
    """Write the tarball, readable by its owner alone; return the names of its files. Raises WorkFailed."""
    sections: list[Section] = [("findings.json", [_shown(finding) for finding in findings])]
    sections.append(("versions.json", _versions()))
    clean = redactor(())
    try:
        loaded = configuration.load(flags)
        clean = redactor(loaded.secrets())
        sections.append(("configuration.json", _configuration(loaded)))
        conninfo = target.target(loaded.settings, announce=lambda _: None).conninfo
        sections.extend(_of_database(conninfo, loaded))
    except BillingError as error:
        sections.append(("unreadable.json", {"error": str(error), "hint": error.hint}))
    try:
        _write(path, {name: _text(_cleaned(content, clean)) for name, content in sections})
    except OSError as error:
        raise WorkFailed(
            f"The report {path} cannot be written: {error.strerror}.", "Name a file in a directory of yours."
        ) from None
    return [name for name, _ in sections]


def _shown(finding: Finding) -> dict[str, str | None]:
    return {"check": finding.check, "level": finding.level, "message": finding.message, "hint": finding.hint}


def _versions() -> dict[str, Any]:
    installed = {one.metadata["Name"]: one.version for one in distributions()}
    return {
        "containerstacks-billing": __version__,
        "python": sys.version,
        "executable": sys.executable,
        "machine": platform.platform(),
        "packages": dict(sorted(installed.items())),
    }


def _configuration(loaded: configuration.Configuration) -> dict[str, Any]:
    settings = {
        key: {"value": loaded.shown(key), "from": loaded.origins[key].place}
        for key in KEYS
        if loaded.origins[key].source != "default"
    }
    file = str(loaded.env_file.path) if loaded.env_file else None
    return {"given": settings, "envFile": file, "warnings": loaded.warnings, "remarks": loaded.remarks}


def _of_database(conninfo: str, loaded: configuration.Configuration) -> Iterator[Section]:
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        sections: dict[str, Callable[[], Any]] = {
            "server.json": lambda: _server(connection),
            "migrations.json": lambda: _migrations(conninfo),
            "status.json": lambda: StatusDocument.of(read_status(connection), loaded.settings),
            "runs.json": lambda: RunList.model_validate({"runs": recent_runs(connection, _RUNS)}),
            "plans.txt": lambda: "\n".join(_plans(connection)),
        }
        for name, read in sections.items():
            try:
                yield name, read()
            except BillingError as error:
                yield name, {"unreadable": str(error)}
            except errors.Error as error:
                yield name, {"unreadable": str(error).splitlines()[0]}


def _server(connection: Connection) -> dict[str, Any]:
    with bounded_transaction(connection):
        found: dict[str, Any] = {"version": connection.info.parameter_status("server_version")}
        for name in ("report_settings", "report_tables", "report_waiting"):
            found[name.removeprefix("report_")] = ask(connection, name, dict_row).fetchall()
    return found


def _migrations(conninfo: str) -> list[MigrationDocument]:
    return [MigrationDocument.model_validate(one) for one in migrator.status(conninfo)]


def _plans(connection: Connection) -> Iterator[str]:
    """Yield the plan of each statement for values that are not known, as a server makes it that has seen many."""
    for name in _PLANNED:
        yield f"-- {name}"
        text, count = _numbered(query(name))
        values = f"({', '.join(['null'] * count)})" if count else ""
        try:
            with bounded_transaction(connection):
                connection.execute("set local plan_cache_mode = force_generic_plan")
                connection.execute(f"prepare report_plan as {text}".encode())
                rows = connection.execute(f"explain (costs) execute report_plan{values}".encode()).fetchall()
                yield from (row[0] for row in rows)
        except errors.Error as error:
            yield f"no plan: {str(error).splitlines()[0]}"
        finally:
            connection.execute("deallocate all")
        yield ""


def _numbered(text: str) -> tuple[str, int]:
    """Return a statement with numbered parameters, as the server prepares it, and how many it has."""
    names = list(dict.fromkeys(_PLACEHOLDER.findall(text)))
    return _PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", text).replace("%%", "%"), len(
        names
    )


def _text(content: Any) -> str:
    """Return the text of a file: JSON, except for text."""
    if isinstance(content, str):
        return content + "\n"
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    """Return a value of JSON, each text in it redacted by itself, so that a document stays one."""
    if isinstance(value, Document):
        value = value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {key: _cleaned(one, clean) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(one, clean) for one in value]
    return value if value is None or isinstance(value, int | float) else clean(str(value))


def _write(path: Path, files: Mapping[str, str]) -> None:
    moment = int(Clock().host_time().timestamp())
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode(errors="backslashreplace")
            entry = tarfile.TarInfo(f"{path.name.partition('.')[0]}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), moment, 0o600
            archive.addfile(entry, io.BytesIO(data))
    path.touch(mode=0o600)
    path.write_bytes(content.getvalue())
