"""Host applications by name, and the instances that a host bills and the configured statuses leave out."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from containerstacks_billing.manuals import manual


class Host(Enum):
    """A host application, by its name, and where its document stands."""

    CONTAINERSTACKS = "ContainerStacks"
    SUCCESSOR = "skypanelv2"
    NONE = "none"

    @property
    def document(self) -> str | None:
        """The path of the page that says what to switch off there, and what bills what."""
        return None if self is Host.NONE else manual(f"hosts/{self.value.lower()}.md")

    @property
    def switch_off(self) -> str:
        """How its own hourly billing of instances is switched off."""
        if self is Host.SUCCESSOR:
            return (
                "Its scheduler bills whatever daemon is alive: delete the lines "
                'runHourlyBilling("initial"), and runHourlyBilling("scheduled"), in api/server.ts, '
                "or refuse its hourly debits: "
                "containerstacks-billing migrate --fence-host-billing"
            )
        return (
            "Stop its own daemon (systemctl disable --now containerstacks-billing, node scripts/billing-daemon); "
            "its built-in scheduler rests while a daemon here beats"
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Instances of one status that the host billed within a week and billing would not, with their price a month."""

    status: str
    instances: int
    monthly: Decimal


def describe(left_out: tuple[LeftOut, ...], billable: tuple[str, ...], currency: str) -> str:
    """Say how many instances and how much money a month the configured statuses leave out."""
    instances = sum(one.instances for one in left_out)
    monthly = sum((one.monthly for one in left_out), Decimal(0))
    by_status = ", ".join(f"{one.instances:,} {one.status}" for one in left_out)
    return (
        f"The host application bills {instances:,} {'instance' if instances == 1 else 'instances'} that"
        f" BILLABLE_STATUSES={','.join(billable)} leaves out ({by_status}): {monthly:,.2f} {currency} a month"
    )
