"""JSON document of `drill`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from containerstacks_billing.document import Document, Money
from containerstacks_billing.drill.runner import Report


class DrillDocument(Document):
    """What was drilled, which faults were injected, and what came out."""

    passed: bool
    version: str
    files: int
    sha256: str
    as_delivered: bool | None
    changed_files: list[str]
    server_version: str = Field(validation_alias="server")
    embedded: bool
    least_privilege: bool
    owner_bills_because: str | None = Field(validation_alias="owner_bills")
    seed: int
    seconds: Annotated[float, AfterValidator(lambda seconds: round(seconds, 1))]
    acts: list[str]
    faults: dict[str, int]
    crowd: dict[str, int]
    runs: dict[str, int]
    hours_due: Money = Field(validation_alias="due")
    hours_charged: Money = Field(validation_alias="charged")
    hours_twice: Money = Field(validation_alias="twice")
    hours_lost: Money = Field(validation_alias="lost")
    wallets: int
    wallets_off: int = Field(validation_alias="drifts")
    checks: int
    failed_checks: list[str]
    findings: list[str]
    found_after: str | None

    @classmethod
    def of(cls, report: Report) -> DrillDocument:
        """Return the document of a report."""
        installed = report.installed
        return cls.model_validate(
            vars(report)
            | {
                "passed": report.passed,
                "version": installed.version,
                "files": installed.files,
                "sha256": installed.sha256,
                "as_delivered": installed.as_delivered,
                "changed_files": installed.changed or [],
                "least_privilege": report.owner_bills is None,
            }
        )
