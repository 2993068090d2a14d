"""The command: one module per family of verbs, each importing what is heavy when it runs."""

from __future__ import annotations

from containerstacks_billing.cli import (
    config,
    daemon,
    db,
    doctor,
    drill,
    events,
    grants,
    migrate,
    prices,
    quarantine,
    release,
    run,
    runs,
    runways,
    serve,
    status,
    token,
    up,
    verify,
)
from containerstacks_billing.cli import service as service_verbs
from containerstacks_billing.cli.main import Verb, app, main

for group in (app, *(one.typer_instance for one in app.registered_groups)):
    for command in group.registered_commands if group else ():
        command.cls = Verb

__all__ = [
    "app",
    "config",
    "daemon",
    "db",
    "doctor",
    "drill",
    "events",
    "grants",
    "main",
    "migrate",
    "prices",
    "quarantine",
    "release",
    "run",
    "runs",
    "runways",
    "serve",
    "service_verbs",
    "status",
    "token",
    "up",
    "verify",
]
