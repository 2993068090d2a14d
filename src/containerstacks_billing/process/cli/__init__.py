"""The command: one module per family of verbs, each importing what is heavy when it runs."""

from __future__ import annotations

from containerstacks_billing.process.cli import (
    config,
    db,
    doctor,
    migrate,
    prices,
    run,
    runs,
    serve,
    status,
    token,
    up,
    verify,
)
from containerstacks_billing.process.cli.application import app, main

__all__ = [
    "app",
    "config",
    "db",
    "doctor",
    "main",
    "migrate",
    "prices",
    "run",
    "runs",
    "serve",
    "status",
    "token",
    "up",
    "verify",
]
