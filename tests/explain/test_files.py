"""Statements as files: CSV for spreadsheets, HTML for browsers, PDF for print; hostile names do nothing in any of them."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.explain.letterhead import Letterhead, read_letterhead
from containerstacks_billing.explain.month import month_named
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.statement import Reading, read_statement
from containerstacks_billing.explain.statement_csv import write_csv
from containerstacks_billing.explain.statement_html import html
from containerstacks_billing.explain.statement_pdf import press
from containerstacks_billing.explain.statement_schema import Statement
from containerstacks_billing.explain.statement_view import writer

HOSTILE = "=cmd|' /C calc'!A1<script>alert(1)</script>#[*x*] $a$ \x1b[2J"


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn, at="2026-11-01 00:00")


def read(fleet: Fleet, organization: UUID, month: str = "2026-11") -> Statement:
    with snapshot(fleet.conninfo) as connection:
        found = read_statement(connection, Reading(month_named(month), "USD"), organization)
    assert found is not None
    return found


def billed(fleet: Fleet, label: str = "web", name: str = "Acme") -> UUID:
    acme = fleet.organization("20.00", name=name)
    fleet.instance(acme, fleet.plan("11.00"), label=label)
    fleet.hours(30)
    fleet.bill()
    return acme


def pdf_of(statement: Statement, letterhead: Letterhead, template: Path | None = None) -> bytes:
    with press(letterhead, writer(letterhead, "USD", "UTC"), template) as made:
        return made.pdf(statement)


def test_the_rows_of_the_csv_add_up(fleet: Fleet) -> None:
    """In a spreadsheet both accounts can be added up."""
    file = io.StringIO(newline="")
    write_csv([read(fleet, billed(fleet))], file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))

    assert [
        ("cash", "opening balance", "0.00"), ("cash", "opening", "20.00"), ("cash", "billing", "-0.45"),
        ("cash", "closing balance", "19.55"), ("usage", "hours", "0.4520547"), ("reconciling", "usage", "0.4520547"),
        ("reconciling", "carry out", "-0.0020547"), ("reconciling", "debits", "0.45"),
    ] == [(row["account"], row["kind"], row["amount"]) for row in rows]  # fmt: skip
    assert Decimal(rows[4]["hours"]) * Decimal(rows[4]["hourlyRate"]) == Decimal(rows[4]["amount"])


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "|x", HOSTILE])
def test_no_cell_of_the_csv_is_a_formula(fleet: Fleet, label: str) -> None:
    """A customer chooses labels and names, and an accountant opens the file."""
    file = io.StringIO(newline="")
    write_csv([read(fleet, billed(fleet, label, label))], file)
    texts = [
        row[column]
        for row in csv.DictReader(io.StringIO(file.getvalue()))
        for column in ("organization", "label", "plan", "note")
        if row[column]
    ]
    assert texts
    assert [] == [text for text in texts if text.lstrip()[0] in "=+-@|\t"]


def test_hostile_names_are_text_in_html(fleet: Fleet) -> None:
    """Everything from the books is escaped, and the page may load and run nothing."""
    page = html(
        read(fleet, billed(fleet, HOSTILE, HOSTILE)), Letterhead(), writer(Letterhead(), "USD", "UTC")
    )

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src 'none'" in page
    assert "\x1b" not in page


def test_html_speaks_the_locale_of_the_letterhead(fleet: Fleet) -> None:
    """Numbers, dates and money as the accountant of the hoster writes them."""
    letterhead = Letterhead(name="Beispiel GmbH", locale="de_DE", tax_line="USt-IdNr. DE123")
    page = html(read(fleet, billed(fleet)), letterhead, writer(letterhead, "USD", "Europe/Berlin"))

    for said in (
        "Beispiel GmbH",
        "USt-IdNr. DE123",
        "November 2026",
        "19,55\xa0$",
        "0,45205470\xa0$",
        "Preview, not issued",
    ):
        assert said in page


def test_the_same_statement_is_the_same_pdf(fleet: Fleet) -> None:
    """Byte for byte, so a second print is no other document; and hostile names are typeset as they are."""
    one = read(fleet, billed(fleet, HOSTILE, HOSTILE))
    first, second = pdf_of(one, Letterhead()), pdf_of(one, Letterhead())

    assert b"%PDF-" == first[:5]
    assert first == second
    assert len(first) > 5000


def test_a_hoster_replaces_the_template(fleet: Fleet, tmp_path: Path) -> None:
    """A template that does not work is named with what is wrong, before a thousand statements are written."""
    one = read(fleet, billed(fleet))
    own = tmp_path / "own.typ"
    own.write_text("#let s = json(bytes(sys.inputs.statement))\n#s.customer.name")
    assert b"%PDF-" == pdf_of(one, Letterhead(), own)[:5]
    own.write_text("#undefined_name")
    with pytest.raises(ConfigurationError, match="undefined_name"):
        pdf_of(one, Letterhead(), own)
    page = tmp_path / "own.html"
    page.write_text("<b>{{ customer.name }}</b>")
    assert "<b>Acme</b>" == html(one, Letterhead(), writer(Letterhead(), "USD", "UTC"), page)


def test_a_letterhead_is_read_and_checked(tmp_path: Path) -> None:
    """What would spoil every statement is refused at once, with what to write instead."""
    file = tmp_path / "letterhead.toml"
    file.write_text('name = "Example"\naddress = ["1 Street", "City"]\nnumber = "ST-{year}-{number:04}"\n')
    letterhead = read_letterhead(file)
    assert ("Example", ("1 Street", "City"), "ST-2026-0007") == (
        letterhead.name, letterhead.address, letterhead.number_of(7, "2026-11")
    )  # fmt: skip
    for text, said in (
        ('nmae = "x"', "unknown key: nmae"), ("name = 5", "has to be a text"), ('number = "{nr}"', "is no format"),
        ('logo = "none.png"', "is not there"), ('logo = "/etc/passwd"', "no PNG"), ('paper = "a5"', "a4 or us-letter"),
        ("name = ", "cannot be read"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            read_letterhead(file)
    with pytest.raises(ConfigurationError, match="no locale"):
        writer(Letterhead(locale="xx_YY_nowhere"), "USD", "UTC")


def test_a_month_is_a_month() -> None:
    """Its instants are those of its time zone, also over a change of clocks."""
    october = month_named("2026-10", "Europe/Berlin")
    assert timedelta(days=31, hours=1) == october.ends_at - october.starts_at
    for month, zone in (
        ("2026-13", "UTC"),
        ("26-10", "UTC"),
        ("2026-10", "Nowhere/City"),
        ("2026-10", "../etc"),
    ):
        with pytest.raises(Exception, match=r"is no month|no time zone"):
            month_named(month, zone)
