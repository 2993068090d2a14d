"""TLS to the database: with `verify-full` only the server that proves its name is believed, and the reason for a no is told."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.conftest import FAST, SERVER_PREFIX
from tests.daemons import eventually
from tests.fleet import Fleet
from tests.forked import fork_server

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.database.connection import connect
from containerstacks_billing.errors import BillingError, ConfigurationError
from containerstacks_billing.sandbox.programs import identity
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate

NAME = "db.billing.test"
# The embedded server is built without TLS; Debian's is not.
BINARIES = Path("/usr/lib/postgresql/15/bin")
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Place:
    """A server on loopback with certificates to choose from."""

    server: EmbeddedServer
    directory: Path
    address: str

    def conninfo(self, **parameters: str) -> str:
        """How an operator of another machine names it."""
        known = {
            "host": NAME,
            "hostaddr": self.address,
            "sslmode": "verify-full",
            "sslrootcert": str(self.file("ca.crt")),
        }
        return make_conninfo(self.server.conninfo("postgres"), **{**known, **parameters})

    def file(self, name: str) -> Path:
        """A certificate or key."""
        return self.directory / name

    def show(self, certificate: str | None) -> None:
        """Let the server show a certificate, or speak without TLS."""
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as conn:
            if certificate:
                conn.execute(f"alter system set ssl_cert_file = '{self.file(certificate)}.crt'".encode())
                conn.execute(f"alter system set ssl_key_file = '{self.file(certificate)}.key'".encode())
            conn.execute(f"alter system set ssl = {'on' if certificate else 'off'}".encode())
            before = conn.execute("select pg_conf_load_time()").fetchone()
            conn.execute("select pg_reload_conf()")
            eventually(lambda: conn.execute("select pg_conf_load_time()").fetchone() != before)
            wanted = (f"{self.file(certificate)}.crt",) if certificate else ("off",)
            setting = "ssl_cert_file" if certificate else "ssl"
            eventually(lambda: conn.execute(f"show {setting}".encode()).fetchone() == wanted)


def openssl(directory: Path, *arguments: str) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def certify(directory: Path, name: str, *, authority: str, host: str = NAME, days: int = 2) -> None:
    """Make a certificate for a host, signed by an authority; a negative number of days makes one that is over."""
    request = ("req", *KEY, "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}")
    openssl(directory, *request, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    signer = (
        "-CA",
        f"{authority}.crt",
        "-CAkey",
        f"{authority}.key",
        "-CAcreateserial",
        "-copy_extensions",
        "copy",
    )
    openssl(
        directory, "x509", "-req", "-in", f"{name}.csr", *signer, "-days", str(days), "-out", f"{name}.crt"
    )


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is missing")
    if not (BINARIES / "postgres").exists():
        pytest.skip("only Debian's PostgreSQL speaks TLS, and postgresql-15 is missing")
    directory = Path(tempfile.mkdtemp(prefix=SERVER_PREFIX))
    number = secrets.randbelow(1 << 16)
    address = f"127.200.{number >> 8}.{number % 256}"
    server = EmbeddedServer(directory, BINARIES, {**FAST, "listen_addresses": address})
    server.start()
    try:
        owner = identity().owner
        certificates = directory / "certificates"
        certificates.mkdir(mode=0o755)
        for authority in ("ca", "other"):
            named = ("-x509", "-days", "2", "-subj", f"/CN={authority}")
            openssl(
                certificates, "req", *KEY, *named, "-keyout", f"{authority}.key", "-out", f"{authority}.crt"
            )
        certify(certificates, "right", authority="ca")
        certify(certificates, "foreign", authority="other")
        certify(certificates, "elsewhere", authority="ca", host="elsewhere.test")
        certify(certificates, "expired", authority="ca", days=-1)
        for file in [certificates, *certificates.iterdir()]:
            os.chown(file, owner, -1)
        yield Place(server, certificates, address)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_a_server_that_proves_its_name_is_billed(place: Place) -> None:
    """Everything that a run opens, its workers' connections and that of the lease too, goes through TLS."""
    place.show("right")
    migrate(place.conninfo())
    with psycopg.connect(place.conninfo(), autocommit=True) as conn:
        fleet = Fleet(conn)
        fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
        fleet.hours(2)
        seen: set[tuple[bool, str]] = set()

        def look(*_: object) -> None:
            seen.update(
                conn.execute(
                    "select ssl, version from pg_stat_ssl join pg_stat_activity using (pid)"
                    " where application_name like 'containerstacks-billing%'"
                ).fetchall()
            )

        result = run_billing(fleet.order(conninfo=place.conninfo(), opened=look, progressed=look))
    assert (Outcome.COMPLETED, 2) == (result.outcome, result.hours)
    assert {(True, "TLSv1.3")} == seen


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ("foreign", "certificate verify failed"),
        ("elsewhere", 'does not match host name "db.billing.test"'),
        ("expired", "certificate verify failed"),
        (None, "does not offer the encryption"),
    ],
)
def test_a_server_that_does_not_is_refused(place: Place, certificate: str | None, words: str) -> None:
    """No password is sent to it, and the sentence says what is wrong and where to look."""
    place.show(certificate)
    with pytest.raises(ConfigurationError, match=words) as refused:
        connect(place.conninfo(), purpose="billing")
    assert "sslrootcert" in str(refused.value.hint)


def test_a_missing_authority_is_told(place: Place, tmp_path: Path) -> None:
    """`verify-full` without the file that proves anything is a mistake of the configuration, and no reason to wait."""
    place.show("right")
    with pytest.raises(ConfigurationError, match="root certificate file"):
        connect(place.conninfo(sslrootcert=str(tmp_path / "none.crt")), purpose="billing")


@pytest.mark.parametrize(
    ("mode", "warned"),
    [pytest.param("prefer", True, marks=pytest.mark.slow), ("require", True), ("verify-full", False)],
)
def test_doctor_says_out_loud_what_proves_nothing(
    place: Place, tmp_path: Path, mode: str, warned: bool
) -> None:
    """A working connection to another machine that could be intercepted is a finding."""
    place.show("right")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATABASE_URL": place.conninfo(sslmode=mode),
    }
    examined = fork_server().run(["doctor", "--json"], tmp_path, environment, 180)
    findings = json.loads(examined.stdout)["findings"]
    assert "OK" in {finding["level"] for finding in findings if finding["check"] == "database"}
    said = [finding for finding in findings if "does not prove who answers" in json.dumps(finding)]
    assert warned is bool(said)
    assert all(finding["level"] == "WARN" for finding in said)


def test_every_refusal_is_an_error_of_ours(place: Place) -> None:
    """Nothing of the driver comes out, whichever mode was asked for of a server without TLS."""
    place.show(None)
    for mode in ("require", "verify-ca", "verify-full"):
        with pytest.raises(BillingError):
            connect(place.conninfo(sslmode=mode), purpose="reading")
