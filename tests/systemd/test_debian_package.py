"""The whole life of an installation, walked by an ordinary user with sudo from an empty machine, by package and by wheel.

Each walk leaves its transcript in build/walks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from tests.daemons import ROOT, eventually, wait_for_lock
from tests.hosts.life import ContainerStacks
from tests.systemd.walk import Walk, built, package_of
from tests.systemd_container import UNIT, Machine, Refused, booted

WALKS = ROOT / "build" / "walks"
CONFIGURATION = "/etc/containerstacks-billing/env"
DATABASE = "postgresql://billing:{password}@127.0.0.1:5432/containerstacks"
APP = "containerstacks-billing-app.service"

pytestmark = pytest.mark.slow


@pytest.fixture
def machine() -> Iterator[Machine]:
    if shutil.which("sudo") is None or shutil.which("pipx") is None:
        pytest.skip("sudo or pipx is missing: apt-get install sudo pipx")
    scratch = Path(tempfile.mkdtemp(prefix="containerstacks-machine-", dir="/var/tmp"))
    try:
        with booted(scratch, bare=True) as made:
            # Whatever keeps packages from starting services here, the machine of the walk has it not.
            made.do("rm", "-f", "/usr/sbin/policy-rc.d", "/usr/local/bin/containerstacks-billing")
            yield made
    except Refused as refusal:
        pytest.skip(f"no real systemd here: {refusal}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def host_of(machine: Machine) -> Iterator[ContainerStacks]:
    """The host application's database, owned by the role of its .env: two customers, three instances, five hours due."""
    with psycopg.connect(machine.conninfo, autocommit=True) as connection:
        connection.execute("create role billing login password 'first-f2c81d'")
        connection.execute(
            "alter database containerstacks owner to billing; alter schema public owner to billing"
        )
        connection.execute("set role billing; set time zone 'UTC'")
        host = ContainerStacks(connection, at=datetime.now(UTC) - timedelta(hours=5))
        plan = host.plan("7.30")
        for count in (2, 1):
            organization = host.customer("100.00")
            for number in range(count):
                host.set_status(host.create_vps(organization, plan, f"web {number}"), "running")
        yield host


def arrives(host: ContainerStacks) -> UUID:
    """One more instance of a new customer, five hours old, which nothing has billed yet."""
    host.now = datetime.now(UTC) - timedelta(hours=5)
    (plan,) = host.conn.execute("select id from vps_plans").fetchone() or (None,)
    assert plan is not None
    return host.create_vps(host.customer("100.00"), plan, "web", status="running")


def hours(host: ContainerStacks) -> list[int]:
    """Hours charged by us, by instance: a lost hour is missing here, and one charged twice is one too many."""
    rows = host.conn.execute(
        "select round(extract(epoch from sum(billing_period_end - billing_period_start)) / 3600)::integer"
        " from vps_billing_cycles where run_id is not null group by vps_instance_id order by 1"
    ).fetchall()
    return [count for (count,) in rows]


def adopts_and_bills(walk: Walk, host: ContainerStacks, sudo: str) -> None:
    """From the configuration to the first run by hand and its proof."""
    assert "migrate" in walk.types(f"{sudo} doctor", code=1)
    walk.types(f"{sudo} migrate --dry-run")
    walk.types(f"{sudo} migrate")
    assert "3 instances" in walk.types(f"{sudo} run --dry-run")
    assert [] == hours(host)


def is_killed_stopped_and_reloaded(walk: Walk, host: ContainerStacks) -> None:
    """The service survives a kill, a stop in the middle of a run, a start, and a changed setting."""
    machine = walk.machine
    before = machine.unit("MainPID")
    walk.knows(f"sudo systemctl kill --signal=KILL {UNIT}")
    eventually(
        lambda: machine.unit("ActiveState") == "active" and machine.unit("MainPID") not in {before, "0"}
    )
    assert "was killed" in walk.types(f"sudo journalctl -u {UNIT} -p err")
    walk.types(f"sudo systemctl stop {UNIT}")
    arrives(host)
    walk.types(f"sudo systemctl start {UNIT}")
    eventually(lambda: hours(host) == [5] * 4)


def has_its_password_rotated(walk: Walk, host: ContainerStacks, file: str, apply: str) -> None:
    """Changed in the database and in the file; what is printed makes it take effect."""
    host.conn.execute("reset role")
    host.conn.execute("alter role billing password 'second-77ab03'")
    host.conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'billing'")
    host.conn.execute("set role billing")
    walk.writes(f"DATABASE_URL={DATABASE.format(password='second-77ab03')}", file)
    walk.types(apply)
    assert "0 failed" in walk.types("sudo containerstacks-billing doctor")
    arrives(host)
    walk.types(f"sudo systemctl restart {UNIT}")
    eventually(lambda: hours(host) == [5] * 5)


def is_proved(walk: Walk) -> None:
    """The books are right, to the last digit."""
    assert "The books are right" in walk.types("sudo containerstacks-billing verify")


class TopUps(threading.Thread):
    """The load of an application: top-ups of every customer, one after the other, until it is stopped."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(daemon=True)
        self.conninfo, self.stopped, self.count = machine.conninfo, threading.Event(), 0

    def run(self) -> None:
        """Change rows until it is stopped."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            while not self.stopped.is_set():
                connection.execute("update organizations set updated_at = updated_at")
                connection.execute("update vps_instances set label = label")
                self.count += 1


def is_upgraded_under_load(walk: Walk, host: ContainerStacks, package: Path) -> None:
    """A run is under way when the installation stops the old version; the new one goes on where that ended."""
    machine = walk.machine
    walk.brings(package)
    walk.types("dpkg-deb --extract containerstacks-billing_0.1.1_amd64.deb next")
    beside = (
        "sudo env CONTAINERSTACKS_ENV_FILE=/etc/containerstacks-billing/env"
        " next/usr/lib/containerstacks-billing/bin/python -m containerstacks_billing"
    )
    planned = walk.types(f"{beside} migrate --dry-run")
    assert "900_next_version" in planned
    assert "Beside a running daemon: " in planned
    load = TopUps(machine)
    load.start()
    arrives(host)
    walk.types(f"sudo systemctl restart {UNIT}")
    eventually(lambda: hours(host) == [5] * 6)
    walk.types(f"{beside} migrate")
    assert machine.unit("ActiveState") == "active"
    for _ in range(3):
        arrives(host)
    walk.types("sudo apt-get install ./containerstacks-billing_0.1.1_amd64.deb")
    eventually(lambda: hours(host) == [5] * 9)
    load.stopped.set()
    load.join()
    assert load.count > 0
    assert "0.1.1" in walk.knows("containerstacks-billing --version")
    assert machine.unit("ActiveState") == machine.unit("ActiveState", APP) == "active"


def a_run_under_way_is_completed_by_an_upgrade(walk: Walk, host: ContainerStacks) -> None:
    """The same version once more, while a batch waits for a row that the host holds: prerm waits for the cycle."""
    machine = walk.machine
    arrives(host)
    with psycopg.connect(machine.conninfo) as holder:
        holder.execute("select from wallets for update")
        walk.types(f"sudo systemctl restart {UNIT}")
        wait_for_lock(host.conn)
        installing = threading.Thread(
            target=walk.knows, args=("sudo dpkg --install containerstacks-billing_0.1.1_amd64.deb",)
        )
        installing.start()
        machine.says("the current billing run is completed first")
        assert installing.is_alive()
        holder.rollback()
    installing.join()
    eventually(lambda: machine.unit("ActiveState") == "active")
    assert [5] * 10 == hours(host)


def is_removed(walk: Walk, host: ContainerStacks) -> None:
    """A removal stops and keeps the configuration; a purge takes that too; the books stay as they were."""
    machine, before = walk.machine, hours(host)
    walk.types("sudo apt-get remove containerstacks-billing")
    assert machine.run("systemctl", "cat", UNIT).returncode == 1
    assert machine.run("test", "-e", CONFIGURATION).returncode == 0
    said = walk.types("sudo apt-get purge containerstacks-billing")
    assert "tables and charges in the database" in said
    assert machine.run("test", "-e", CONFIGURATION).returncode == 1
    assert machine.run("test", "-e", "/usr/lib/containerstacks-billing").returncode == 1
    assert before == hours(host)


def test_a_walk_with_the_debian_package(machine: Machine, tmp_path: Path) -> None:
    """Install, adopt, bill, kill, stop, reload, rotate the password, upgrade under load, remove, purge."""
    first = package_of("0.1.0", tmp_path)
    second = package_of("0.1.1", tmp_path / "next")
    if shutil.which("lintian"):
        remarks = subprocess.run(
            ["lintian", "--no-cfg", str(first)], check=False, capture_output=True, text=True
        )
        assert "" == remarks.stdout
    walk = Walk(machine, WALKS / "debian-package.txt")
    machine.write("/etc/apt/apt.conf.d/99yes", 'APT::Get::Assume-Yes "true";\n')
    with host_of(machine) as host:
        walk.brings(first)
        began = time.monotonic()
        walk.types("sudo apt-get install ./containerstacks-billing_0.1.0_amd64.deb")
        assert "inactive" == machine.unit("ActiveState")
        walk.writes(f"DATABASE_URL={DATABASE.format(password='first-f2c81d')}", CONFIGURATION)
        adopts_and_bills(walk, host, "sudo containerstacks-billing")
        walk.types(f"sudo systemctl enable --now {UNIT}")
        eventually(lambda: hours(host) == [5] * 3)
        took = time.monotonic() - began
        walk.knows(f"echo 'from the package to the first bill: {took:.0f} s'")
        walk.types(f"sudo systemctl enable --now {APP}")
        units_are_right_and_confined(machine, "/lib/systemd/system")
        assert "0 failed" in walk.types("sudo containerstacks-billing doctor")
        assert "Repeat the command with sudo" in walk.types("containerstacks-billing doctor")
        is_killed_stopped_and_reloaded(walk, host)
        has_its_password_rotated(walk, host, CONFIGURATION, f"sudo systemctl reload {UNIT}")
        walk.types(f"sudo systemctl restart {APP}")
        is_upgraded_under_load(walk, host, second)
        a_run_under_way_is_completed_by_an_upgrade(walk, host)
        is_proved(walk)
        is_removed(walk, host)


def units_are_right_and_confined(machine: Machine, place: str) -> None:
    """`systemd-analyze verify` remarks nothing, and the exposure of both units is at most 1.5."""
    for name in (UNIT, APP):
        verified = machine.run("systemd-analyze", "verify", "--man=no", name)
        assert "" == verified.stdout + verified.stderr
        machine.do(
            "systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", f"{place}/{name}"
        )


def wheels(target: Path) -> None:
    """Download what the wheel needs, since the machine of the walk has no network."""
    download = [sys.executable, "-m", "pip", "download", "-qq", "-d", str(target)]
    lock = ROOT / "requirements-base.lock"
    subprocess.run([*download, "--require-hashes", "-r", str(lock)], check=True, capture_output=True)
    # pipx of Debian renews these in its own environment.
    subprocess.run([*download, "pip", "setuptools", "wheel"], check=True, capture_output=True)


def offline(machine: Machine, place: Path) -> None:
    """Let pip and uv of the machine take packages from a directory there, since it has no network."""
    machine.do("sh", "-c", "rm -rf ~root/.config/pip /etc/xdg/pip")  # of the machine below; they would win
    kept = "/var/lib/wheels-of-the-walk"
    machine.do("mkdir", kept)
    for file in place.iterdir():  # not by pip itself, which would follow the link /proc/…/root
        shutil.copy(file, f"/proc/{machine.init}/root{kept}/{file.name}")
    machine.write("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {kept}\n")
    machine.write(
        "/etc/uv/uv.toml", f'no-index = true\nfind-links = ["{kept}"]\npython-preference = "only-system"\n'
    )


def bring_uv(machine: Machine, place: Path) -> None:
    """Install uv, as whoever uses it has done before."""
    download = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", str(place), "uv"]
    subprocess.run(download, check=True, capture_output=True)
    with zipfile.ZipFile(next(place.glob("uv-*.whl"))) as archive:
        (program,) = (name for name in archive.namelist() if name.endswith("/scripts/uv"))
        target = Path(f"/proc/{machine.init}/root/usr/local/bin/uv")
        target.write_bytes(archive.read(program))
        target.chmod(0o755)


@pytest.mark.parametrize(
    ("tool", "installs"),
    [
        ("pipx", "sudo env PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install"),
        ("uv", "sudo env UV_TOOL_DIR=/opt/uv UV_TOOL_BIN_DIR=/usr/local/bin uv tool install"),
    ],
)
def test_a_walk_with_the_wheel(machine: Machine, tmp_path: Path, tool: str, installs: str) -> None:
    """The same with pipx or uv, outside of homes, and the unit that `service install` writes."""
    wheel = next(built(ROOT, tmp_path, "--no-deb").glob("*.whl"))
    wheels(tmp_path / "wheels")
    if tool == "uv":
        bring_uv(machine, tmp_path)
    offline(machine, tmp_path / "wheels")
    machine.write("/opt/containerstacks/.env", "BILLING_INTERVAL_MINUTES=60\n", "644")
    walk = Walk(machine, WALKS / f"wheel-{tool}.txt")
    env = "/opt/containerstacks/.env"
    with host_of(machine) as host:
        walk.brings(wheel)
        began = time.monotonic()
        walk.types(f"{installs} ./containerstacks_billing-0.1.0-py3-none-any.whl")
        walk.writes(f"DATABASE_URL={DATABASE.format(password='first-f2c81d')}", env)
        sudo = "sudo containerstacks-billing --env-file /opt/containerstacks/.env"
        assert "chmod 600 /opt/containerstacks/.env" in walk.knows(f"{sudo} doctor", code=1)
        walk.types("sudo chmod 600 /opt/containerstacks/.env")
        walk.knows(f"{sudo} migrate")
        walk.knows(f"{sudo} service install --create-user")
        eventually(lambda: hours(host) == [5] * 3)
        walk.knows(f"echo 'from the wheel to the first bill: {time.monotonic() - began:.0f} s'")
        is_killed_stopped_and_reloaded(walk, host)
        has_its_password_rotated(walk, host, env, f"sudo systemctl restart {UNIT}")
        is_proved(walk)
        left = walk.types("sudo containerstacks-billing service uninstall")
        assert "Left: the user containerstacks-billing (userdel containerstacks-billing)" in left
        assert machine.run("systemctl", "cat", UNIT).returncode == 1
