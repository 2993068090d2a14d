"""`drill`: faults against the installed version, which can reach nothing but the database that it made itself."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from tests.command import Command
from tests.fleet import Fleet
from tests.planted.patches import copy_of_sources, does_not_apply

from containerstacks_billing.cli.drill import _count
from containerstacks_billing.drill.environment import DATABASE_PREFIX, DrillEnvironment, stage
from containerstacks_billing.drill.faults import Drill, FaultKind, inject
from containerstacks_billing.drill.fingerprint import installed
from containerstacks_billing.drill.least_privilege import admit_biller
from containerstacks_billing.drill.processes import Billers
from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.schema.migrator import migrate

ROOT = Path(__file__).resolve().parents[2]
# Where libpq would go if anybody let it.
ELSEWHERE = {
    "PGHOST": "127.0.0.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGDATABASE": "nowhere",
    "PGSERVICE": "none",
}


def books(conn: psycopg.Connection[Any]) -> dict[str, object]:
    """Return what stands in every table of a database, and how often its rows were ever written."""
    conn.execute("select pg_stat_clear_snapshot()")
    tables = conn.execute(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1"
    ).fetchall()
    found: dict[str, object] = {}
    for (table,) in tables:
        found[table] = conn.execute(
            f"select count(*), md5(string_agg(t::text || xmin, '' order by t::text)) from {table} t"
        ).fetchone()
    return found


@pytest.fixture
def real(conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A ContainerStacks database with hours due, which every setting leads to, and from which nothing may be taken."""
    fleet = Fleet(conn)
    organization, plan = fleet.organization("5.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(3)
    for name, value in {
        **ELSEWHERE,
        "DATABASE_URL": fleet.conninfo,
        "TEST_DATABASE_URL": fleet.conninfo,
    }.items():
        monkeypatch.setenv(name, value)
    return fleet


@pytest.fixture(autouse=True)
def one_drill_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Test processes share a server: what another one drills at the same time is no leftover of this drill."""
    with (tmp_path_factory.getbasetemp().parent / "drill.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def databases(conn: psycopg.Connection[Any]) -> set[str]:
    """Name the databases of the server but for those that other test processes make and drop meanwhile."""
    return {
        row[0] for row in conn.execute("select datname from pg_database where datname !~ '^billing_test_'")
    }


def test_a_stage_is_a_database_of_its_own(real: Fleet) -> None:
    """Even on the server of TEST_DATABASE_URL, and when that names real tables, it is another database, and goes."""
    before, known = books(real.conn), databases(real.conn)
    with stage() as own:
        name = str(conninfo_to_dict(own.conninfo)["dbname"])
        assert name.startswith(DATABASE_PREFIX)
        assert {name} == databases(real.conn) - known
        with psycopg.connect(own.conninfo) as inside:
            assert (0,) == inside.execute(
                "select count(*) from pg_class where relname = 'vps_instances'"
            ).fetchone()
        assert own.server is None
        with pytest.raises(ConfigurationError):
            own.crash_server()

    assert known == databases(real.conn)
    assert before == books(real.conn)


def test_what_a_drill_starts_sees_none_of_the_operators_settings(real: Fleet) -> None:
    """DATABASE_URL, credentials and the variables of libpq are away until it is over; a daemon has an empty directory."""
    with stage() as own:
        left = [name for name in os.environ if name.startswith("PG") or name == "DATABASE_URL"]
        # Set by every connection of ours, and leads nowhere.
        assert [] == [name for name in left if name != "PGDATESTYLE"]
        environment = own.environment()
        assert own.conninfo == environment["DATABASE_URL"]
        assert not [name for name in environment if name.startswith("PG") or name == "TEST_DATABASE_URL"]
        assert [] == list(own.directory.iterdir())

    assert real.conninfo == os.environ["DATABASE_URL"]
    assert "1" == os.environ["PGPORT"]


def test_a_drill_that_fails_leaves_nothing(real: Fleet) -> None:
    """Whatever ends it, the database that it made is dropped."""
    known = databases(real.conn)
    with pytest.raises(ZeroDivisionError), stage():
        raise ZeroDivisionError

    assert known == databases(real.conn)


def test_billers_of_a_drill_have_the_granted_rights_and_no_others(real: Fleet) -> None:
    """A role of the drill's own, which goes with its database; one that may make none is told of in the report."""
    with stage() as bare:
        assert bare.owner_bills is not None
        migrate(bare.conninfo)
        own = admit_biller(bare)
        assert own.owner_bills is None
        assert own.billing in own.environment().values()
        role = str(conninfo_to_dict(own.billing)["user"])
        # By its name: tests that run beside this one make roles of the same server.
        assert 1 == len(real.rows("select from pg_roles where rolname = %s", role))
        with psycopg.connect(own.billing, autocommit=True) as biller:
            assert biller.execute("select count(*) from vps_instances").fetchone() == (0,)
            for forbidden in (
                "delete from payment_transactions",
                "update vps_plans set base_price = 0",
                "create temporary table mine (id integer)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    biller.execute(forbidden)
    assert [] == real.rows("select from pg_roles where rolname = %s", role)


def test_a_role_that_may_make_no_other_drills_as_the_owner(
    role: str, real: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEST_DATABASE_URL may be a role that may make databases and nothing else: the drill goes on, and says so."""
    real.conn.execute(sql.SQL("alter role {} createdb").format(sql.Identifier(role)))
    humble = make_conninfo(real.conninfo, user=role, password=role)
    monkeypatch.setenv("TEST_DATABASE_URL", humble)
    known = databases(real.conn)
    with stage() as bare:
        migrate(bare.conninfo)
        own = admit_biller(bare)
        assert own.billing == own.conninfo
        assert "may make no other" in str(own.owner_bills)
    assert known == databases(real.conn)


def test_one_of_something_is_not_called_many(capsys: pytest.CaptureFixture[str]) -> None:
    """Every count that a drill can print reads well when it is 1."""
    counts = {"servers crashed and started again": 1, "billers stopped past their lease, and woken": 1}
    _count(Console(width=80), "What was done", {**counts, "billing processes killed with SIGKILL": 2})
    told = capsys.readouterr().out
    assert "1  server crashed and started again" in told
    assert "1  biller stopped past its lease, and woken" in told
    assert "2  billing processes killed with SIGKILL" in told


def acting(*hits: bool) -> tuple[Drill, FaultKind, list[bool]]:
    """Return a drill without an environment, and a fault that hits or misses in this order and always misses afterwards."""
    drill = Drill(cast("DrillEnvironment", None), cast("Billers", None), Random(1))
    past: list[bool] = []

    def once(drill: Drill) -> None:
        past.append(len(past) < len(hits) and hits[len(past)])
        drill.done["hits"] += past[-1]

    return drill, FaultKind("Something is done", 0.1, once, least=2), past


def test_a_fault_that_hit_nothing_is_tried_again() -> None:
    """A biller that had ended before its kill, on a machine that got faster, is none of those that are promised."""
    drill, act, past = acting(False, True, False, False, True)
    inject(drill, act, 0.0)
    assert ([], 2, 5) == (drill.problems, drill.times, len(past))


def test_faults_that_could_not_be_done_are_no_pass() -> None:
    """Bounded, and with the name of what was never hit."""
    drill, act, past = acting(True)
    inject(drill, act, 0.0)
    assert 1 == drill.times < 20 < len(past)
    assert [f"Something is done: there was nothing to hit in {len(past) - 1} tries"] == drill.problems


def test_without_a_server_it_says_what_to_install(command: Command, tmp_path: Path) -> None:
    """No extra, no PostgreSQL on the machine, no TEST_DATABASE_URL: the way out is named, and DATABASE_URL is none."""
    nothing = {
        "CONTAINERSTACKS_BILLING_POSTGRES_BIN": str(tmp_path),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere",
    }
    done = command("drill", environment=nothing)

    assert 78 == done.returncode
    assert "pip install 'containerstacks-billing[embedded]'" in done.stderr
    assert "TEST_DATABASE_URL" in done.stderr
    assert 2 == command("drill", "--database-url", "postgresql://nobody@127.0.0.1:1/nowhere").returncode


def test_the_installed_files_have_one_sum() -> None:
    """The same files have the same sum; a checkout has no record of what was delivered."""
    first, second = installed(), installed()

    assert first == second
    assert 64 == len(first.sha256)
    assert first.files > 200


def drill(
    python: str, directory: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Drill with another interpreter or another copy of the package."""
    kept = {name: os.environ[name] for name in os.environ if name.startswith("CONTAINERSTACKS_BILLING_")}
    return subprocess.run(
        [python, "-m", "containerstacks_billing", "drill", "--seconds", "10", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8", **kept, **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.slow
def test_a_drill_passes_beside_real_tables_and_leaves_them_alone(real: Fleet, tmp_path: Path) -> None:
    """Every setting leads to a database with hours due: the drill charges thousands of its own, and none of those."""
    before, known = books(real.conn), databases(real.conn)
    (tmp_path / ".env").write_text(f"DATABASE_URL={real.conninfo}\n")
    done = drill(
        sys.executable,
        tmp_path,
        "--json",
        TEST_DATABASE_URL=real.conninfo,
        DATABASE_URL=real.conninfo,
        **ELSEWHERE,
    )

    report = json.loads(done.stdout)
    assert (0, True, []) == (done.returncode, report["passed"], report["findings"]), done.stderr
    assert 0 == Decimal(report["hoursLost"]) == Decimal(report["hoursTwice"])
    assert 0 < Decimal(report["hoursDue"]) == Decimal(report["hoursCharged"])
    assert report["leastPrivilege"], report["ownerBillsBecause"]
    assert report["faults"]["billing processes killed with SIGKILL"] > 0
    assert not [kind for kind in report["faults"] if "servers crashed" in kind]
    assert known == databases(real.conn)
    assert before == books(real.conn)


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["03_debit_in_its_own_transaction", "10_carry_written_after_the_commit"])
def test_a_planted_bug_fails_the_drill(bug: str, tmp_path: Path) -> None:
    """A copy of the package that debits, or carries on, after its commit: FAIL, with what is wrong.

    What shows only when the host changes an instance amid a batch is for `./dev planted`: a drill meets it by chance.
    """
    sources = copy_of_sources(tmp_path)
    assert "" == does_not_apply(bug, sources)
    # It ends with the first finding.
    done = drill(sys.executable, tmp_path, "--seed", "3", "--seconds", "90", PYTHONPATH=str(sources))

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "FAIL" in done.stdout
    assert "Do not bill with this installation." in done.stdout


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_can_be_drilled(tmp_path: Path) -> None:
    """Built, installed and drilled: its files are as delivered, and one changed byte is noticed."""
    wheels, home = tmp_path / "wheels", tmp_path / "environment"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(home, with_pip=True)
    python = str(home / "bin" / "python")
    (wheel,) = wheels.glob("*.whl")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    packages = next((home / "lib").glob("python3*")) / "site-packages"
    # What it depends on is taken from where the tests run; a line of a .pth file does not read other .pth files.
    dependencies = Path(psycopg.__file__).parent.parent
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")

    done = drill(python, tmp_path)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "files, as delivered" in done.stdout
    assert "crashed and started again" in done.stdout
    assert "a role with what billing_admit() gives" in done.stdout
    assert "PASS" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    touched = packages / "containerstacks_billing" / "charging" / "run.py"
    touched.write_text(touched.read_text() + "# changed\n")
    question = "from containerstacks_billing.drill.fingerprint import installed; print(*installed().changed)"
    changed = subprocess.run([python, "-c", question], check=True, capture_output=True, text=True)
    assert "containerstacks_billing/charging/run.py" == changed.stdout.strip()
