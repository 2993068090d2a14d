"""A statement as texts for a template: numbers and dates are written as the locale of the letterhead writes them.

HTML and PDF place the same texts; neither computes anything. Amounts on the wallet are whole cents; what was used has
up to eight digits, and all of them are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.explain.letterhead import Letterhead
from containerstacks_billing.explain.month import zone_named
from containerstacks_billing.explain.statement_schema import Statement

# Eight digits always, so that the points of a column stand below each other.
EXACT = "#,##0.00000000"
_KINDS = {
    "opening": "Balance that a new wallet came with",
    "billing": "Server hours",
    "correction": "Price corrections",
    "reversal": "Reversals",
    "credit": "Credits",
    "audit": "Repayments of what the application took too much",
    "other billing": "Other entries of billing",
    "top-up": "Paid in",
    "host billing": "Billed by the application itself",
    "host debit": "Other debits",
    "accepted": "Difference of the balance that was accepted",
}
_STEPS = {
    "usage": "Used in this month",
    "debited_later": "of it charged after the end of the month",
    "past_due": "of it not paid by the end of the month",
    "debited_earlier": "of it charged before the month",
    "for_earlier_months": "Hours of earlier months, charged in this one",
    "past_due_collected": "Unpaid hours of earlier months, paid in this one",
    "ahead_of_month": "Hours of later months, charged in this one",
    "carry_in": "Fractions of a cent kept from before",
    "carry_out": "Fractions of a cent kept for later",
    "debits": "Debited from the balance",
}


@dataclass(frozen=True, slots=True)
class Writer:
    """Numbers, money and dates in a locale, a currency and a time zone."""

    locale: Any
    currency: str
    timezone: str

    def money(self, amount: Decimal) -> str:
        """Write whole cents with the currency."""
        from babel.numbers import format_currency  # noqa: PLC0415 - belongs to the extra `pdf`

        return format_currency(amount, self.currency, locale=self.locale)

    def exact(self, amount: Decimal) -> str:
        """Write an amount with all its digits."""
        from babel.numbers import format_decimal  # noqa: PLC0415

        return format_decimal(amount, format=EXACT, locale=self.locale)

    def exact_money(self, amount: Decimal) -> str:
        """Write an amount with all its digits and the currency."""
        from babel.numbers import format_currency  # noqa: PLC0415

        pattern = str(self.locale.currency_formats["standard"].pattern).replace("0.00", "0.00000000")
        return format_currency(amount, self.currency, pattern, locale=self.locale, currency_digits=False)

    def hours(self, hours: Decimal) -> str:
        """Write hours, rounded to two digits for the eye; the document has them exactly."""
        from babel.numbers import format_decimal  # noqa: PLC0415

        return format_decimal(hours, format="#,##0.##", locale=self.locale)

    def day(self, at: datetime) -> str:
        """Write a day."""
        from babel.dates import format_date  # noqa: PLC0415

        return format_date(at.astimezone(zone_named(self.timezone)), format="medium", locale=self.locale)

    def month(self, at: datetime) -> str:
        """Write a month and its year."""
        from babel.dates import format_skeleton  # noqa: PLC0415

        return format_skeleton("yMMMM", at.astimezone(zone_named(self.timezone)), locale=self.locale)


# The statements of a checkout are made by its own environment, which has everything once the tests were fetched.
INSTALL_PDF = (
    "Install them: pip install 'containerstacks-billing[pdf]'; in a checkout ./dev test fetches them."
    " --csv and --json work without."
)


def writer(letterhead: Letterhead, currency: str, timezone: str) -> Writer:
    """Return a writer; raises ConfigurationError where the locale or the library for locales is missing."""
    try:
        from babel import Locale, UnknownLocaleError  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "HTML and PDF need libraries that are not installed.",
            INSTALL_PDF,
        ) from None
    try:
        return Writer(Locale.parse(letterhead.locale.replace("-", "_")), currency, timezone)
    except (UnknownLocaleError, ValueError):
        raise ConfigurationError(
            f"There is no locale {letterhead.locale!r}.", "Write it like en_GB or de_DE."
        ) from None


def view(statement: Statement, letterhead: Letterhead, write: Writer, sha256: str) -> dict[str, Any]:
    """Return the texts of a statement by their places in a template."""
    usage = statement.usage
    number = "" if statement.number is None else letterhead.number_of(statement.number, statement.month)
    return {
        "title": "Statement of account",
        "month": write.month(statement.starts_at),
        "number": number,
        "issued": "" if statement.issued_at is None else write.day(statement.issued_at),
        "preview": statement.number is None,
        "complete": statement.complete,
        "currency": statement.currency,
        "timezone": statement.timezone,
        "issuer": {
            "name": letterhead.name,
            "address": list(letterhead.address),
            "contact": list(letterhead.contact),
            "tax_line": letterhead.tax_line,
            "footer": letterhead.footer,
        },
        "paper": letterhead.paper,
        "customer": {
            "name": _printable(statement.organization) or "Deleted customer",
            "address": [_printable(line) for line in (statement.address or "").splitlines() if line.strip()][
                :8
            ],
            "tax_id": _printable(statement.tax_id),
            "id": str(statement.organization_id),
        },
        "figures": _figures(statement, write),
        "cash": _cash(statement, write),
        "usage": [_line(line, write) for line in usage.lines],
        "usage_total": write.exact(usage.charges),
        "usage_hours": write.hours(usage.hours),
        "adjustments": [
            [
                _named(one.label, one.instance_id or one.kind),
                ", ".join(one.months),
                _printable(one.reason),
                write.hours(one.hours),
                write.exact(one.amount),
            ]
            for one in usage.adjustments
        ],
        "adjusted_total": write.exact(usage.adjusted),
        "host": [
            [_named(one.label, one.instance_id), write.hours(one.hours), write.exact(one.amount)]
            for one in usage.by_the_host
        ],
        "host_total": write.exact(usage.by_the_host_amount),
        "reconciling": _reconciling(statement, write),
        "findings": statement.findings,
        "sha256": sha256,
    }


def _figures(statement: Statement, write: Writer) -> list[list[str]]:
    """Return the four figures at the top; without a wallet only what was used."""
    used = ["Used", write.exact_money(statement.usage.amount)]
    if statement.opening is None or statement.closing is None:
        return [used]
    paid_in = sum((one.amount for one in statement.entries if one.kind == "top-up"), Decimal(0))
    return [
        ["Opening balance", write.money(statement.opening)],
        ["Paid in", write.money(paid_in)],
        used,
        ["Closing balance", write.money(statement.closing)],
    ]


def _cash(statement: Statement, write: Writer) -> list[list[str]]:
    """Return the cash account: day, text and amount, with the opening and the closing balance around it."""
    if statement.opening is None or statement.closing is None:
        return []
    single = {one.kind for one in statement.single_entries}
    rows = [[write.day(statement.starts_at), "Opening balance", write.money(statement.opening)]]
    rows += [
        [write.day(one.posted_at), _text(one.kind, one.description), write.money(one.amount)]
        for one in statement.single_entries
    ]
    rows += [
        ["", f"{_KINDS.get(one.kind, one.kind)}, {one.entries} {'entry' if one.entries == 1 else 'entries'}",
         write.money(one.amount)]
        for one in statement.entries
        if one.kind not in single
    ]  # fmt: skip
    return [*rows, ["", "Closing balance", write.money(statement.closing)]]


def _text(kind: str, description: str | None) -> str:
    name = _KINDS.get(kind, kind)
    return f"{name}: {_printable(description)}" if description else name


def _line(line: Any, write: Writer) -> dict[str, Any]:
    marks = []
    if line.past_due:
        marks.append(f"{write.exact(line.past_due)} of it not paid by the end of the month")
    if line.debited_later:
        marks.append(f"{write.exact(line.debited_later)} of it charged after the end of the month")
    return {
        "name": _named(line.label, line.instance_id),
        "deleted": line.deleted,
        "plan": _printable(line.plan),
        "hours": write.hours(line.hours),
        "rate": write.exact(line.hourly_rate),
        "amount": write.exact(line.amount),
        "marks": marks,
    }


def _reconciling(statement: Statement, write: Writer) -> list[list[str]]:
    """Return the steps from what was used to what was debited; those of nothing are left out."""
    block = statement.reconciling
    if block is None:
        return []
    return [[_STEPS[name], write.exact(amount)] for name, amount in block.steps()]


def _named(label: str | None, identifier: object) -> str:
    return _printable(label) or str(identifier)


def _printable(text: str | None) -> str:
    """Return a text without control characters, which neither a page nor a printer can show."""
    return "".join(character for character in text or "" if character.isprintable()).strip()
