"""JSON document of `verify`."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from containerstacks_billing.document import Document, Hours, Instant, Money
from containerstacks_billing.verification.model import Verification


class CheckDocument(Document):
    """One statement about the books, and how often it does not hold."""

    name: str
    description: str
    ok: bool
    examined: int
    discrepancies: int = Field(validation_alias="found")
    shown: int
    hint: str | None = Field(
        validation_alias="remedy", description="What to do; left out where the check holds"
    )

    @model_serializer(mode="wrap")
    def _without_empty_hint(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {key: value for key, value in write(self).items() if key != "hint" or value}


class DiscrepancyDocument(Document):
    """One difference, with the identifiers to find it by: organizationId, instanceId, chargeId and others."""

    model_config = ConfigDict(extra="allow")

    check: str
    message: str


class HostDocument(Document):
    """What the host application billed by itself, and since our first run beside us."""

    cycles: int
    doubled: int
    overlapped: int
    charged_by_both: int
    hours_charged_by_both: Hours
    amount_charged_by_both: Money
    unkeyed_debits: int


class SettledDocument(Document):
    """Discrepancies of one check that were accepted or restored."""

    check: str
    decision: str
    decisions: int
    amount: Money
    decided_by: str
    decided_at: Instant


class OpenItemsDocument(Document):
    """What is as it should be and still worth knowing."""

    quarantined_instances: int
    held_instances: int
    past_due_instances: int
    past_due_amount: Money
    unposted_adjustments: int
    unsettled_segments: int
    charges_without_organization: int
    hours_passed_by_host: Hours
    amount_passed_by_host: Money


class VerificationDocument(Document):
    """The books, compared as they stood at one instant."""

    ok: bool
    read_at: Instant
    checks: list[CheckDocument]
    discrepancies: list[DiscrepancyDocument]
    host: HostDocument
    settled: list[SettledDocument]
    set_aside: OpenItemsDocument

    @classmethod
    def of(cls, one: Verification) -> VerificationDocument:
        """Return the document of a verification."""
        return cls(
            ok=one.ok,
            read_at=one.read_at,
            checks=[CheckDocument.model_validate(check) for check in one.checks],
            discrepancies=[
                DiscrepancyDocument.model_validate(
                    {"check": found.check, "message": found.message}
                    | {f"{kind.removesuffix('_id')}Id": value for kind, value in found.identifiers.items()}
                )
                for found in one.discrepancies
            ],
            host=HostDocument.model_validate(one.host),
            settled=[SettledDocument.model_validate(settled) for settled in one.settled],
            set_aside=OpenItemsDocument.model_validate(one.open_items),
        )


class VerificationRecord(Document):
    """A result of verify over all the books, and who asked for it."""

    read_at: Instant = Field(description="The instant at which the books were compared")
    finished_at: Instant
    verified_by: str
    discrepancies: int
    document: dict[str, Any] = Field(description="The document of verify --json")
