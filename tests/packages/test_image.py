"""The image that the Containerfile makes, run as compose.yaml runs it: no root, nothing to write to, and a health check.

The base image is made here of Debian's packages, since no registry of images is asked; everything above it is ours.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from tests.conftest import FAST, SERVER_PREFIX
from tests.daemons import ROOT, eventually
from tests.database.test_connection import free_port
from tests.hosts.life import ContainerStacks

from containerstacks_billing.sandbox.server import PORT, ROLE, EmbeddedServer

pytestmark = pytest.mark.slow

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
INCLUDED = "--include=python3,python3-venv,python-is-python3,ca-certificates"
# Podman of Debian runs on the second version of control groups alone, and sets limits that a container may not raise.
CONTROL_GROUPS = 'umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec podman "$@"'
LIMITS = ("--cgroups=disabled", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")


def podman(*words: str) -> subprocess.CompletedProcess[str]:
    """Run podman, on a machine of the first version of control groups as well."""
    command = ["podman", *words]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        command = ["unshare", "--mount", "--propagation=slave", "sh", "-c", CONTROL_GROUPS, *command]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=600)


def done(*words: str) -> str:
    """Run podman, which has to succeed; return what it prints."""
    process = podman(*words)
    assert process.returncode == 0, f"{' '.join(words)}: {process.stdout}\n{process.stderr}"
    return process.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The name of an image built from this checkout."""
    if missing := [name for name in ("podman", "debootstrap", "unshare") if shutil.which(name) is None]:
        pytest.skip(f"missing: apt-get install {' '.join(missing)}")
    version = f"test-{secrets.token_hex(4)}"
    base, built = f"docker.io/library/python:{version}-slim", f"localhost/containerstacks-billing:{version}"
    scratch = Path(tempfile.mkdtemp(prefix="containerstacks-image-", dir="/var/tmp"))
    try:
        root = scratch / "root"
        subprocess.run(
            ["debootstrap", "--variant=minbase", INCLUDED, "bookworm", str(root)],
            check=True,
            capture_output=True,
        )
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")  # of this machine, which may know one more
        shutil.copy(certificates, f"{root}{certificates}")
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {certificates}\n")
        subprocess.run(["tar", "-C", str(root), "-cf", str(scratch / "root.tar"), "."], check=True)
        done("import", str(scratch / "root.tar"), base)
        # fmt: off
        done("build", "--isolation=chroot", "--network=host", "--pull-never", "--layers=false", "--format=docker",
             f"--build-arg=PYTHON={version}", f"--tag={built}", f"--file={ROOT}/Containerfile", str(ROOT))
        # fmt: on
        yield built
    finally:
        podman("rmi", "--force", built, base)
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture
def database_url() -> Iterator[str]:
    """The address of a database that a container reaches; no table is in it."""
    directory = Path(tempfile.mkdtemp(prefix=SERVER_PREFIX))
    number = secrets.randbelow(1 << 16)
    address = f"127.201.{number >> 8}.{number % 256}"
    server = EmbeddedServer(directory, settings={**FAST, "listen_addresses": address})
    server.start()
    try:
        password = (directory / "password").read_text().strip().rpartition(":")[2]
        yield f"postgresql://{ROLE}:{password}@{address}:{PORT}/postgres"
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def flags(service: str, secret: Path, port: int) -> list[str]:
    """What compose.yaml says of a service, in words of `podman run`."""
    given = SERVICES[service]
    variables = {**given["environment"], "HOST": "127.0.0.1", "PORT": port}
    return [
        *LIMITS,
        "--network=host",
        "--no-healthcheck",  # its timer would be systemd's; the test runs the check itself
        f"--user={given['user']}",
        *(["--read-only", "--read-only-tmpfs=false"] if given["read_only"] else []),
        *(f"--tmpfs={place}" for place in given["tmpfs"]),
        *(f"--cap-drop={name}" for name in given["cap_drop"]),
        *(f"--security-opt={name.removesuffix(':true')}" for name in given["security_opt"]),
        *(f"--env={name}={value}" for name, value in variables.items()),
        f"--volume={secret}:/run/secrets/database_url:ro",
    ]


@contextmanager
def started(image: str, service: str, secret: Path, port: int) -> Iterator[str]:
    """Start a service of compose.yaml; remove its container at the end."""
    name = f"containerstacks-billing-{secrets.token_hex(4)}"
    try:
        done(
            "run",
            "--detach",
            f"--name={name}",
            *flags(service, secret, port),
            image,
            *SERVICES[service]["command"],
        )
        yield name
    finally:
        podman("rm", "--force", "--time=10", name)


def test_the_services_of_the_image(image: str, database_url: str, tmp_path: Path) -> None:
    """Migrated, billed, healthy, answered, stopped with the cycle complete; no rights, and no password to be seen."""
    secret, port = tmp_path / "database_url", free_port()
    secret.write_text(database_url)
    secret.chmod(0o444)
    for place in tmp_path.parents:
        if place.stat().st_uid == 0 and str(place).startswith("/tmp/pytest"):
            place.chmod(0o755)
    check = SERVICES["daemon"]["healthcheck"]["test"][1:]
    with psycopg.connect(database_url, autocommit=True) as connection:
        host = ContainerStacks(connection, at=datetime.now(UTC) - timedelta(hours=5))
        vps = host.create_vps(host.customer("100.00"), host.plan("7.30"), "web")
        host.set_status(vps, "running")
        done("run", "--rm", *flags("migrate", secret, port), image, "migrate")
        with (
            started(image, "daemon", secret, port) as daemon,
            started(image, "application", secret, port) as served,
        ):
            eventually(lambda: podman("exec", daemon, *check).returncode == 0)
            eventually(lambda: podman("exec", served, *check).returncode == 0)
            hours = "select round(extract(epoch from sum(billing_period_end - billing_period_start)) / 3600)"
            eventually(
                lambda: connection.execute(f"{hours} from vps_billing_cycles".encode()).fetchone() == (5,)
            )
            rights = done("exec", daemon, "grep", "-E", "^(Uid|CapEff|CapBnd|NoNewPrivs):", "/proc/1/status")
            assert {"Uid": "10001", "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"} == {
                line.partition(":")[0]: line.split()[1] for line in rights.splitlines()
            }
            for place in ("/written", "/opt/containerstacks/written", "/run/written"):
                refused = podman("exec", daemon, "touch", place)
                assert (1, True) == (refused.returncode, "Read-only file system" in refused.stderr)
            password = psycopg.conninfo.conninfo_to_dict(database_url)["password"]
            assert str(password) not in done("inspect", daemon) + done("logs", daemon)
            done("stop", "--time=120", daemon)
            assert "0" == done("inspect", "--format={{.State.ExitCode}}", daemon)
            status = connection.execute("select status from billing_daemon_status").fetchone()
            assert ("stopped",) == status
            late = podman(
                "run", "--rm", "--entrypoint=python", *flags("daemon", secret, port), image, *check[1:]
            )
            assert (1, "") == (late.returncode, late.stderr), "a daemon that has stopped is not healthy"
