"""The service under a real systemd, from its installation to its end, as an operator lives with it.

The steps stand in the order of a service's life and share one machine: each leaves the service running, or says so.
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.daemons import compress, eventually, wait_for_lock
from tests.fleet import Fleet
from tests.systemd_container import DATABASE_URL, HOME, UNIT, Machine, Refused, booted

ENV = f"""\
# The file of the host application.
DATABASE_URL="{DATABASE_URL}"
BILLING_INTERVAL_MINUTES=60
HEARTBEAT_SECONDS=2
JWT_SECRET=canary-5d1c6a
"""
# An operator's own drop-in, which makes the waiting short.
SHORT = "[Service]\nRestartSec=300ms\nWatchdogSec=4\nTimeoutAbortSec=2\n"
SHORT_APP = "[Service]\nRestartSec=300ms\n"  # it feeds no watchdog, so it must not get one
INSTALL = ("containerstacks-billing", "--env-file", f"{HOME}/.env", "service", "install")


@pytest.fixture
def machine() -> Iterator[Machine]:
    scratch = Path(tempfile.mkdtemp(prefix="containerstacks-machine-", dir="/var/tmp"))
    try:
        with booted(scratch) as made:
            yield made
    except Refused as refusal:
        pytest.skip(f"no real systemd here: {refusal}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def books_of(machine: Machine) -> Iterator[psycopg.Connection[Any]]:
    """The books; what the service logged is shown beside a failure."""
    with psycopg.connect(machine.conninfo, autocommit=True) as connection:
        yield connection
    print(machine.do("journalctl", "-u", UNIT, "--no-pager", "-n", "60"))


def a_fleet(machine: Machine) -> Fleet:
    """Three instances of two organizations, five hours old, by a clock that goes on from now."""
    with psycopg.connect(machine.conninfo, autocommit=True) as connection:
        fleet = Fleet(connection, at=datetime.now(UTC) - timedelta(hours=5))
        plan = fleet.plan("7.30")
        for count in (2, 1):
            organization = fleet.organization("100.00")
            for _ in range(count):
                fleet.instance(organization, plan)
        compress(connection, 1, datetime.now(UTC))
        return fleet


APP = "containerstacks-billing-app.service"


def doctor(machine: Machine) -> dict[str, dict[str, str]]:
    """Return the worst finding of each check."""
    done = machine.run("containerstacks-billing", "--env-file", f"{HOME}/.env", "doctor", "--json")
    worst: dict[str, dict[str, str]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        ranks = ["OK", "WARN", "FAIL"]
        known = worst.get(finding["check"])
        if known is None or ranks.index(finding["level"]) > ranks.index(known["level"]):
            worst[finding["check"]] = finding
    return worst


def billed_hours(books: psycopg.Connection[Any]) -> list[int]:
    """Hours charged by instance; an hour charged twice could not stand here, but a lost one would be missing."""
    rows = books.execute(
        "select round(extract(epoch from sum(billing_period_end - billing_period_start)) / 3600)::integer"
        " from vps_billing_cycles where run_id is not null"
        " group by vps_instance_id order by 1"
    ).fetchall()
    return [hours for (hours,) in rows]


def somebody_new(books: psycopg.Connection[Any], fleet: Fleet) -> None:
    """One more organization with an instance that nobody billed in its five hours."""
    fleet.conn = books
    plan = books.execute("select id from vps_plans").fetchone()
    assert plan is not None
    fleet.instance(fleet.organization("100.00"), plan[0])


def verified(machine: Machine) -> str:
    """Compare the books, as a role that may read them."""
    url = "DATABASE_URL=postgresql://postgres@/containerstacks?host=/run/postgresql"
    return machine.do("env", url, "containerstacks-billing", "verify")


def is_active(machine: Machine) -> bool:
    return machine.unit("ActiveState") == "active"


def installing_refuses_what_could_not_start(machine: Machine, fleet: Fleet) -> None:
    """Nothing is written while the user, the right to enter or the configuration is missing, and each is named."""
    machine.write(f"{HOME}/.env", ENV, "600")
    refused = machine.run(*INSTALL)
    assert (78, True) == (refused.returncode, "217/USER: the user containerstacks-billing" in refused.stderr)
    machine.do("chmod", "700", str(HOME))
    refused = machine.run(*INSTALL, "--create-user")
    assert refused.returncode == 78
    assert f"203/EXEC: containerstacks-billing cannot pass through {HOME} (mode 0700)" in refused.stderr
    machine.do("chmod", "757", str(HOME))
    assert f"{HOME} can be changed by all users" in machine.run(*INSTALL, "--create-user", "--dry-run").stderr
    machine.do("chmod", "755", str(HOME))
    assert machine.run("id", "containerstacks-billing").returncode == 1
    assert machine.run("test", "-e", f"/etc/systemd/system/{UNIT}").returncode == 1


def installing_starts_a_daemon_that_bills(
    machine: Machine, fleet: Fleet, books: psycopg.Connection[Any]
) -> None:
    """One command; afterwards systemd shows the last run, as a user without rights over a file only root may read."""
    grants = machine.do(
        "containerstacks-billing", "--env-file", f"{HOME}/.env", "grants", "--role", "containerstacks-billing"
    )
    books.execute('create role "containerstacks-billing" login')
    books.execute(grants.encode())
    machine.write(f"/etc/systemd/system/{UNIT}.d/short.conf", SHORT)
    done = machine.run(*INSTALL, "--create-user")
    assert done.returncode == 0, done.stderr + machine.run("journalctl", "-u", UNIT, "-n", "40").stdout
    assert "active (running), enabled" in done.stdout
    eventually(lambda: billed_hours(books) == [5, 5, 5])
    machine.says("Heartbeat")

    status = machine.do("systemctl", "status", "--no-pager", UNIT)
    assert "Active: active (running)" in status
    assert 'Status: "' in status
    eventually(lambda: "3 instances" in machine.unit("StatusText"))
    assert "enabled" == machine.do("systemctl", "is-enabled", UNIT).strip()
    assert (
        "containerstacks-billing" == machine.do("ps", "-o", "user:30=", "-p", machine.unit("MainPID")).strip()
    )
    assert "billing-daemon" in machine.do("sh", "-c", 'ps aux | grep "billing-daemon" | grep -v grep')
    assert "canary-5d1c6a" not in machine.log()


def the_units_are_whole_and_confined(machine: Machine) -> None:
    """Systemd finds nothing to remark, and what is left to attack is little."""
    assert (
        ""
        == (verified := machine.run("systemd-analyze", "verify", "--man=no", UNIT)).stdout + verified.stderr
    )
    machine.do("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager",
               f"/etc/systemd/system/{UNIT}")  # fmt: skip
    found = doctor(machine)
    assert {"OK"} == {
        found[check]["level"] for check in ("unit", "executable", ".env of the unit", "service")
    }


def a_reload_reads_the_configuration_again(machine: Machine) -> None:
    """With a file that the service may read; where systemd hands over a copy of the start, it fails and says restart."""
    machine.write(f"{HOME}/.env", ENV, "600")
    machine.do(*INSTALL)
    refused = machine.run("systemctl", "reload", UNIT)
    assert 0 != refused.returncode
    machine.says("Nothing was reloaded", f"systemctl restart {UNIT}")
    assert is_active(machine)
    machine.do("chown", "containerstacks-billing:", f"{HOME}/.env")
    machine.do(*INSTALL)
    assert f"CONTAINERSTACKS_ENV_FILE={HOME}/.env" in machine.do("systemctl", "cat", UNIT)
    machine.write(f"{HOME}/.env", ENV.replace("MINUTES=60", "MINUTES=30"), "600")
    machine.do("systemctl", "reload", UNIT)
    machine.says("The configuration was re-read", "BILLING_INTERVAL_MINUTES")
    assert is_active(machine)


def commands_find_the_books_of_the_service(machine: Machine) -> None:
    """From any directory, as a user that may read its file; for others the error names the file."""
    shown = machine.run("containerstacks-billing", "config", "show", "--json")
    assert f"{HOME}/.env" == json.loads(shown.stdout)["envFile"]
    assert (
        f"There is no .env here: using {HOME}/.env, the file of {UNIT}."
        in json.loads(shown.stdout)["remarks"]
    )
    as_service = machine.run(
        "runuser", "-u", "containerstacks-billing", "--", "containerstacks-billing", "status"
    )
    assert (0, True) == (as_service.returncode, f"using {HOME}/.env" in as_service.stderr), as_service.stderr
    refused = machine.run("runuser", "-u", "nobody", "--", "containerstacks-billing", "status")
    assert 78 == refused.returncode
    assert f"{HOME}/.env cannot be read: permission denied. It is the file of {UNIT}." in refused.stderr
    assert ("sudo" in refused.stderr, "chown" in refused.stderr) == (True, False)


def a_stop_in_the_middle_completes_the_cycle(
    machine: Machine, fleet: Fleet, books: psycopg.Connection[Any]
) -> None:
    """A run that has begun is completed before the service ends, with success."""
    somebody_new(books, fleet)
    with psycopg.connect(machine.conninfo) as holder:
        holder.execute("select from wallets for update")
        machine.do("systemctl", "restart", UNIT)
        wait_for_lock(books)
        machine.do("systemctl", "stop", "--no-block", UNIT)
        machine.says("the current billing run is completed first")
        assert machine.unit("ActiveState") == "deactivating"
        holder.rollback()
    eventually(lambda: machine.unit("ActiveState") == "inactive")
    assert ("success", [5] * 4) == (machine.unit("Result"), billed_hours(books))
    row = books.execute(
        "select status, instances_billed from billing_daemon_status order by heartbeat_at desc"
    ).fetchone()
    assert ("stopped", 1) == row
    assert doctor(machine)["service"]["hint"] == f"systemctl start {UNIT}"
    machine.do("systemctl", "start", UNIT)


def a_killed_daemon_is_started_again_and_charges_nothing_twice(
    machine: Machine, fleet: Fleet, books: psycopg.Connection[Any]
) -> None:
    """In the middle of a batch, with the worst of all signals."""
    somebody_new(books, fleet)
    with psycopg.connect(machine.conninfo) as holder:
        holder.execute("select from wallets for update")
        machine.do("systemctl", "restart", UNIT)
        wait_for_lock(books)
        before = machine.unit("MainPID")
        machine.do("systemctl", "kill", "--signal=KILL", UNIT)
        eventually(lambda: is_active(machine) and machine.unit("MainPID") not in {before, "0"})
        holder.rollback()
    eventually(lambda: billed_hours(books) == [5] * 5)
    verified(machine)
    assert "restarted the service once; last: ended by signal 9." in doctor(machine)["restarts"]["message"]


def a_daemon_that_hangs_is_ended_by_the_watchdog(machine: Machine) -> None:
    """Frozen from outside: it feeds nobody, systemd ends it and starts another."""
    before = machine.unit("MainPID")
    machine.do("systemctl", "kill", "--signal=STOP", UNIT)
    eventually(lambda: is_active(machine) and machine.unit("MainPID") not in {before, "0"})
    assert "Watchdog timeout" in machine.do("journalctl", "-u", UNIT, "--no-pager")


def the_error_filter_shows_exactly_the_errors(machine: Machine, books: psycopg.Connection[Any]) -> None:
    """A database that goes away is one error and no page of them; information never appears there."""
    machine.do("systemctl", "stop", "books")
    machine.says("The heartbeat could not be written")
    errors = machine.log("-p", "err").splitlines()
    assert errors
    assert {"error"} == {line.split()[0].partition("=")[2] for line in errors}
    every = [
        line for line in machine.log().splitlines() if line.startswith(("level=error", "level=critical"))
    ]
    assert sorted(every) == sorted(errors)


def the_database_returns(machine: Machine) -> None:
    """It has gone, and comes back by the operator's hand."""
    machine.run("systemctl", "reset-failed", "books")
    machine.do("systemd-run", "--quiet", "--unit=books", "--service-type=notify", "-p", "User=postgres", "-p",
               "KillSignal=SIGINT", "/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/books", "-k",
               "/run/postgresql", "-c", "fsync=off")  # fmt: skip


def it_recovers_by_itself(machine: Machine) -> None:
    """Nobody has to restart it when the database is back."""
    machine.says("The heartbeat is written again")
    assert is_active(machine)


def a_wrong_path_is_explained(machine: Machine) -> None:
    """203/EXEC is not tried for ever, and doctor says which path it is and what to do."""
    machine.write(f"/etc/systemd/system/{UNIT}.d/wrong.conf",
               f"[Service]\nExecStart=\nExecStart={HOME}/node_modules/.bin/billing daemon\n")  # fmt: skip
    machine.do("systemctl", "daemon-reload")
    assert machine.run("systemctl", "restart", UNIT).returncode == 1
    eventually(lambda: machine.unit("ActiveState") == "failed")
    assert "203" == machine.unit("ExecMainStatus")
    found = doctor(machine)
    assert f"203/EXEC: {HOME}/node_modules does not exist." == found["executable"]["message"]
    assert f"/etc/systemd/system/{UNIT}.d/wrong.conf" in found["executable"]["hint"]
    assert "exit 203 (203/EXEC" in found["service"]["message"]
    machine.do("rm", f"/etc/systemd/system/{UNIT}.d/wrong.conf")
    machine.do("systemctl", "daemon-reload")


def a_bad_configuration_is_not_tried_for_ever(machine: Machine) -> None:
    """Exit 78: it stays failed, the log says which key, doctor says the same."""
    machine.write(f"{HOME}/.env", ENV.replace("MINUTES=60", "MINUTES=soon"), "600")
    machine.do("systemctl", "reset-failed", UNIT)
    assert machine.run("systemctl", "restart", UNIT).returncode == 1
    eventually(lambda: machine.unit("ActiveState") == "failed")
    assert ("78", "0") == (machine.unit("ExecMainStatus"), machine.unit("NRestarts"))
    found = doctor(machine)
    assert "BILLING_INTERVAL_MINUTES" in found["configuration"]["message"]
    assert "exit 78 (the configuration" in found["service"]["message"]
    assert "BILLING_INTERVAL_MINUTES" in machine.log("-p", "err", "-n", "1")
    assert "hint=" in machine.log("-p", "err", "-n", "1")
    machine.write(f"{HOME}/.env", ENV, "600")
    machine.do("systemctl", "restart", UNIT)


def permission_denied_is_explained(machine: Machine) -> None:
    """A file that the service may not read ends it with 78, and doctor tells who may not read what."""
    machine.do("chown", "root:root", f"{HOME}/.env")
    assert machine.run("systemctl", "restart", UNIT).returncode == 1
    found = doctor(machine)[".env of the unit"]
    assert (
        f"Permission denied: containerstacks-billing may not read {HOME}/.env (mode 0600, of root)."
        == found["message"]
    )
    machine.do(*INSTALL)
    assert is_active(machine)


def what_systemd_reads_differently_is_named(machine: Machine) -> None:
    """An operator's own EnvironmentFile= with a remark behind a value."""
    machine.write(f"{HOME}/.env", ENV.replace("MINUTES=60", "MINUTES=60 # hourly"), "600")
    machine.write(f"/etc/systemd/system/{UNIT}.d/env.conf", f"[Service]\nEnvironmentFile={HOME}/.env\n")
    found = doctor(machine)["EnvironmentFile"]
    assert "the service gets another BILLING_INTERVAL_MINUTES" in found["message"]
    machine.do("rm", f"/etc/systemd/system/{UNIT}.d/env.conf")
    machine.write(f"{HOME}/.env", ENV, "600")


def a_busy_port_is_no_start(machine: Machine) -> None:
    """Who installs hears of it, doctor and the error filter name it, and it is tried again until the port is free."""
    machine.write(f"/etc/systemd/system/{APP}.d/short.conf", SHORT_APP)
    machine.do("systemd-run", "--quiet", "--unit=squatter", f"{HOME}/.venv/bin/python", "-m", "http.server", "3001",
               "--bind", "127.0.0.1")  # fmt: skip
    eventually(lambda: machine.run("curl", "-s", "http://127.0.0.1:3001/").returncode == 0)
    refused = machine.run(*INSTALL, "--app")
    assert (1, False) == (refused.returncode, "Started" in refused.stderr)
    found = doctor(machine)["app service"]
    assert ("FAIL", True) == (
        found["level"],
        "exit 75 (another process listens on its HOST" in found["message"],
    )
    machine.do("journalctl", "--sync")
    errors = machine.do("journalctl", "-u", APP, "-p", "err", "-o", "cat", "--no-pager")
    assert "127.0.0.1 port 3001" in errors
    assert "hint=" in errors
    machine.do("systemctl", "stop", "squatter")
    eventually(lambda: machine.unit("ActiveState", APP) == "active")
    assert "listening at http://127.0.0.1:3001" in machine.do(
        "containerstacks-billing", "service", "show", "--app"
    )


def the_application_side_is_a_service_too(machine: Machine) -> None:
    """Installed beside the daemon, it answers when the start is over, and it ends when told."""
    machine.do(*INSTALL, "--app")
    assert "ok" in machine.do("curl", "-s", "http://127.0.0.1:3001/healthz").lower()
    assert "OK" == doctor(machine)["app service"]["level"]
    verified = machine.run("systemd-analyze", "verify", "--man=no", APP)
    assert "" == verified.stdout + verified.stderr
    ended = machine.run("containerstacks-billing", "service", "uninstall", "--app")
    assert (f"Stopped {APP}.\n" in ended.stderr, "cycle" in ended.stderr) == (True, False)
    assert machine.run("systemctl", "cat", APP).returncode == 1


def a_drop_in_that_is_wrong_is_named(machine: Machine) -> None:
    """A user that does not exist, set beside the unit: to install again would change nothing."""
    path = f"/etc/systemd/system/{UNIT}.d/ghost.conf"
    machine.write(path, "[Service]\nUser=ghost\n")
    found = doctor(machine)["user"]
    assert ("217/USER" in found["message"], path in found["hint"]) == (True, True)
    assert "service install" not in found["hint"]
    machine.do("rm", path)


def a_foreign_unit_is_not_overwritten(machine: Machine) -> None:
    """The unit of another program of this name is replaced only when told to, and kept."""
    path = f"/etc/systemd/system/{UNIT}"
    ours = machine.do("cat", path)
    machine.write(path, "[Service]\nExecStart=/bin/true\n")
    assert "was not written by this command" in machine.run(*INSTALL).stderr
    machine.do(*INSTALL, "--yes")
    assert "ExecStart=/bin/true" in machine.do("cat", f"{path}.replaced")
    assert ours == machine.do("cat", path)


def a_checkout_in_a_home_gets_its_own_unit(machine: Machine) -> None:
    """The hardened unit does not see /root, and says so; the other one runs there, as root."""
    here = "/root/containerstacks/.venv/bin/containerstacks-billing"
    machine.do("sh", "-c", f"{HOME}/.venv/bin/python -m venv --without-pip /root/containerstacks/.venv")
    machine.write(
        here,
        "#!/root/containerstacks/.venv/bin/python\nimport glob, sys\n"
        f"sys.path[:0] = ['{HOME}/src', *glob.glob('{HOME}/.venv/lib/python3*/site-packages')]\n"
        "from containerstacks_billing.cli import main\nmain()\n",
        "755",
    )
    machine.write(
        "/root/containerstacks/.env",
        ENV.replace(DATABASE_URL, DATABASE_URL.replace("//", "//postgres@")),
        "600",
    )
    install = (here, "--env-file", "/root/containerstacks/.env", "service", "install")
    refused = machine.run(*install)
    assert (78, True) == (refused.returncode, "ProtectHome=yes" in refused.stderr)
    assert "service install --dev" in refused.stderr
    machine.do(*install, "--dev")
    assert ("active", "root") == (machine.unit("ActiveState"), machine.unit("User"))
    assert f"ExecStart={here} daemon" in machine.do("systemctl", "cat", UNIT)


def uninstalling_hands_back(machine: Machine, books: psycopg.Connection[Any]) -> None:
    """Stopped cleanly, disabled, gone; no takeover is promised where no application side is left, and the books are right."""
    # root is no role of the database, and the role of the service is not root's.
    machine.write(f"{HOME}/.env", ENV.replace(DATABASE_URL, DATABASE_URL.replace("//", "//postgres@")), "600")
    ended = machine.run("containerstacks-billing", "--env-file", f"{HOME}/.env", "service", "uninstall")
    done = ended.stdout
    assert f"Stopped {UNIT}: it ended by itself, after the billing cycle that it was in." in ended.stderr
    assert "Nothing takes over: no application side has looked within 5 minutes" in done
    assert "Start an application side: containerstacks-billing serve" in done
    assert machine.run("systemctl", "cat", UNIT).returncode == 1
    assert (
        "stopped"
        == books.execute("select status from billing_daemon_status order by heartbeat_at desc").fetchone()[0]
    )  # type: ignore[index]
    assert "not installed" in machine.do("containerstacks-billing", "service", "show")
    verified(machine)


LIFE: tuple[Callable[..., None], ...] = (
    installing_refuses_what_could_not_start,
    installing_starts_a_daemon_that_bills,
    the_units_are_whole_and_confined,
    a_reload_reads_the_configuration_again,
    commands_find_the_books_of_the_service,
    a_stop_in_the_middle_completes_the_cycle,
    a_killed_daemon_is_started_again_and_charges_nothing_twice,
    a_daemon_that_hangs_is_ended_by_the_watchdog,
    the_error_filter_shows_exactly_the_errors,
    the_database_returns,
    it_recovers_by_itself,
    a_wrong_path_is_explained,
    a_bad_configuration_is_not_tried_for_ever,
    permission_denied_is_explained,
    what_systemd_reads_differently_is_named,
    a_busy_port_is_no_start,
    the_application_side_is_a_service_too,
    a_drop_in_that_is_wrong_is_named,
    a_foreign_unit_is_not_overwritten,
    a_checkout_in_a_home_gets_its_own_unit,
    uninstalling_hands_back,
)


@pytest.mark.slow
def test_the_life_of_a_service(machine: Machine) -> None:
    """From a refused installation to the removal; the step that fails is named, and what the service logged is shown."""
    fleet = a_fleet(machine)
    for step in LIFE:
        print(f"--- {step.__name__}")
        wanted = inspect.signature(step).parameters
        with ExitStack() as stack:
            given: dict[str, Any] = {"machine": machine}
            if "fleet" in wanted:
                given["fleet"] = fleet
            if "books" in wanted:
                given["books"] = stack.enter_context(books_of(machine))
            step(**given)
