"""The embedded server, with real processes, real signals and real users."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.sandbox.programs import find_programs
from containerstacks_billing.sandbox.server import EmbeddedServer, default_directory

FAST = {"fsync": "off"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become another user.")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A state directory that does not exist yet, below a parent that others may enter; its server ends here."""
    parent = Path(tempfile.mkdtemp(prefix="containerstacks-embedded-"))
    parent.chmod(0o755)
    yield parent / "state"
    EmbeddedServer(parent / "state").stop()
    shutil.rmtree(parent)


def values(conninfo: str, query: str) -> list[object]:
    """The first column of a query's rows."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        return [row[0] for row in conn.execute(query)]


def write_two_rows(conninfo: str) -> None:
    """Commit something that must not be lost."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CREATE TABLE kept (id) AS VALUES (1), (2)")


def postmaster_of(directory: Path) -> int:
    """The process id of the server, as it wrote it down."""
    return int((directory / "data" / "postmaster.pid").read_text().splitlines()[0])


def mode(path: Path) -> str:
    """The permissions of a file, in octal."""
    return oct(path.stat().st_mode & 0o777)


def run_python(program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a Python process that has our package."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def answer(process: subprocess.Popen[str]) -> str:
    """What a process printed; it has to end well."""
    printed, complaint = process.communicate(timeout=180)
    assert process.returncode == 0, complaint
    return printed.strip()


def test_starting_again_finds_the_data(directory: Path) -> None:
    """A stopped server keeps its rows, and stopping or starting twice is harmless."""
    server = EmbeddedServer(directory, settings=FAST)
    write_two_rows(server.start())
    assert server.start() == server.conninfo("postgres")
    assert server.status().running
    assert server.stop()
    assert not server.stop()
    assert not server.status().running
    assert values(server.start(), "SELECT id FROM kept ORDER BY id") == [1, 2]


def test_the_server_is_durable_unless_told_otherwise(directory: Path) -> None:
    """Settings are those of the object that starts the server."""
    assert values(EmbeddedServer(directory).start(), "SHOW fsync") == ["on"]
    EmbeddedServer(directory).stop()
    assert values(EmbeddedServer(directory, settings=FAST).start(), "SHOW fsync") == ["off"]


def test_text_is_utf8_and_sorts_by_code_point(directory: Path) -> None:
    """The order of names depends neither on the machine's locale nor on its C library."""
    conninfo = EmbeddedServer(directory, settings=FAST).start()
    assert values(conninfo, "SHOW server_encoding") == ["UTF8"]
    assert values(conninfo, "SELECT x FROM (VALUES ('b'), ('ä'), ('Z')) AS t (x) ORDER BY x") == [
        "Z",
        "b",
        "ä",
    ]


def test_only_the_owner_may_enter(directory: Path) -> None:
    """Directories are 0700, the password 0600 and nowhere in the conninfo, and a wrong password is refused."""
    parent_before = mode(directory.parent)
    server = EmbeddedServer(directory, settings=FAST)
    conninfo = server.start()
    password = (directory / "password").read_text().strip().split(":")[-1]
    assert {mode(directory / name) for name in ("", "data", "socket")} == {"0o700"}
    assert {mode(directory / name) for name in ("password", "lock", "server.log")} == {"0o600"}
    assert mode(directory.parent) == parent_before
    assert len(password) >= 32
    assert password not in conninfo
    assert values(conninfo, "SHOW listen_addresses") == [""]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(conninfo, password="guessed")


def test_a_directory_open_to_others_is_refused(directory: Path) -> None:
    """A shared directory is neither used nor closed behind its users' backs."""
    directory.mkdir(mode=0o755)
    (directory / "somebody's file").touch()
    with pytest.raises(ConfigurationError, match="not private"):
        EmbeddedServer(directory).start()
    assert mode(directory) == "0o755"


def test_a_long_path_still_has_a_socket(directory: Path) -> None:
    """A socket path may have 107 bytes; a deeper directory gets a short private one, and every process finds it."""
    deep = directory / ("long" * 30)
    server = EmbeddedServer(deep, settings=FAST)
    server.start()
    socket = server.status().socket
    assert EmbeddedServer(deep).status().running
    assert mode(socket.parent) == "0o700"
    server.stop()
    shutil.rmtree(socket.parent)
    assert values(server.start(), "SELECT 1") == [1]
    server.stop()
    shutil.rmtree(server.status().socket.parent)


def test_several_processes_started_at_once_share_one_server(directory: Path) -> None:
    """The first process creates and starts the server; the others wait and connect."""
    program = """
        import sys, psycopg
        from pathlib import Path
        from containerstacks_billing.sandbox.server import EmbeddedServer
        with psycopg.connect(EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"}).start()) as conn:
            print(conn.execute("SELECT system_identifier FROM pg_control_system()").fetchone()[0],
                  conn.execute("SELECT pg_postmaster_start_time()").fetchone()[0])
    """
    processes = [run_python(program, str(directory)) for _ in range(4)]
    assert len({answer(process) for process in processes}) == 1


def test_a_killed_server_recovers_what_was_committed(directory: Path) -> None:
    """SIGKILL of the postmaster, with a statement going on, loses nothing; the next start recovers by itself."""
    server = EmbeddedServer(directory)
    conninfo = server.start()
    write_two_rows(conninfo)
    first = postmaster_of(directory)
    with psycopg.connect(conninfo, autocommit=True) as busy:
        busy.execute("SELECT 1")
        os.kill(first, signal.SIGKILL)
        assert values(server.start(), "SELECT id FROM kept ORDER BY id") == [1, 2]
    assert postmaster_of(directory) != first
    assert server.status().running


def test_a_server_whose_programs_were_removed_is_started_again(directory: Path, tmp_path: Path) -> None:
    """A checkout is deleted and cloned anew; the server that it started goes on and finds none of its files."""
    installed = Path(find_programs().path("postgres")).parent.parent
    package, copy = installed.parent, tmp_path / "removed" / installed.parent.name
    shutil.copytree(installed, copy / installed.name)
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, copy.with_name(libraries.name))
    former = EmbeddedServer(directory, copy / installed.name / "bin")
    with psycopg.connect(former.start(), autocommit=True) as conn:
        conn.execute("create table kept as select 7 as number")
    shutil.rmtree(tmp_path / "removed")
    server = EmbeddedServer(directory)
    with psycopg.connect(server.start(), autocommit=True) as conn:
        conn.execute("set timezone = 'Europe/Berlin'")
        assert (7,) == conn.execute("select number from kept").fetchone()
    server.stop()


def test_a_busy_backend_that_outlived_its_postmaster_does_not_block_the_start(directory: Path) -> None:
    """A backend in a long statement keeps the shared memory; it is terminated."""
    server = EmbeddedServer(directory)
    conninfo = server.start()
    busy = psycopg.connect(conninfo, autocommit=True)
    busy.execute("CREATE FUNCTION spin() RETURNS void LANGUAGE plpgsql AS 'BEGIN LOOP NULL; END LOOP; END'")
    busy.pgconn.send_query(b"SELECT spin()")
    wait_until(conninfo, "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT spin()' AND state = 'active'")
    os.kill(postmaster_of(directory), signal.SIGKILL)
    assert values(server.start(), "SELECT 1") == [1]
    busy.close()


def wait_until(conninfo: str, query: str) -> None:
    """Return when the query finds a row; thousands of questions are enough for anything that will happen."""
    for _ in range(5_000):
        if values(conninfo, query):
            return
    pytest.fail(f"never true: {query}")


def test_a_process_that_took_over_the_old_number_is_left_alone(directory: Path) -> None:
    """After a reboot postmaster.pid may name a foreign process; that process is left alone and the server starts."""
    server = EmbeddedServer(directory, settings=FAST)
    write_two_rows(server.start())
    pid_file = directory / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines(keepends=True)
    server.stop()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        pid_file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        os.chown(pid_file, (directory / "data").stat().st_uid, -1)
        assert values(server.start(), "SELECT id FROM kept ORDER BY id") == [1, 2]
        assert stranger.poll() is None


def test_a_half_made_data_directory_is_made_again(directory: Path) -> None:
    """A kill in the middle of the first start leaves no data directory, only remains that the next start removes."""
    (directory / "data.new").mkdir(parents=True, mode=0o700)
    directory.chmod(0o700)
    (directory / "data.new" / "PG_VERSION").write_text("18\n")
    assert values(EmbeddedServer(directory, settings=FAST).start(), "SELECT 1") == [1]
    assert not (directory / "data.new").exists()


def test_data_of_another_version_is_not_touched(directory: Path) -> None:
    """Where only other programs are installed the message names the version that is needed."""
    (directory / "data").mkdir(parents=True, mode=0o700)
    directory.chmod(0o700)
    (directory / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match="PostgreSQL 9"):
        EmbeddedServer(directory).start()


def test_psql_connects_without_asking(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no password and shows none, and an option such as -d stays on this server."""
    server = EmbeddedServer(directory, settings=FAST)
    server.start()
    monkeypatch.setenv("PGPASSWORD", "of another server")
    monkeypatch.setenv("PGHOST", "elsewhere.invalid")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    for database in ("postgres", "template1"):
        command = [
            server.psql(),
            "-d",
            database,
            "-Atc",
            "SELECT 40 + 2, current_database(), inet_server_addr()",
        ]
        shown = subprocess.run(
            command, env=server.environment("postgres"), capture_output=True, text=True, check=True
        )
        assert shown.stdout == f"42|{database}|\n"


def test_the_state_directory_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The setting wins over XDG_STATE_HOME."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "containerstacks-billing" / "data").mkdir(parents=True)
    assert default_directory() == tmp_path / "xdg" / "containerstacks-billing"
    monkeypatch.setenv("CONTAINERSTACKS_BILLING_STATE", str(tmp_path / "chosen"))
    assert default_directory() == tmp_path / "chosen"


START_AND_TELL = """
    import json, os, sys
    from pathlib import Path
    import psycopg
    from containerstacks_billing.sandbox import programs
    from containerstacks_billing.sandbox.server import EmbeddedServer
    directory, user, apart = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    # The programs stand apart from the checkout: where a plain user can read them, or where only root can.
    found = programs.copy_programs(programs.find_programs(), apart / "programs").directory
    if user:
        os.setgroups([]), os.setgid(user), os.setuid(user)
    else:
        (apart / "programs").chmod(0o700)
    server = EmbeddedServer(directory, found, {"fsync": "off"})
    with psycopg.connect(server.start()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    pid = int((directory / "data" / "postmaster.pid").read_text().split()[0])
    print(json.dumps({"runs_as": os.stat(f"/proc/{pid}").st_uid, "owner": os.stat(directory / "data").st_uid,
                      "stopped": server.stop()}))
"""


@as_root
def test_a_plain_user_needs_no_rights(directory: Path) -> None:
    """A user without any group or right starts and stops a server, and no other user is involved."""
    nobody = pwd.getpwnam("nobody").pw_uid
    home = directory.parent / "home"
    home.mkdir(mode=0o755)
    os.chown(home, nobody, -1)
    told = json.loads(
        answer(run_python(START_AND_TELL, str(home / "state"), str(nobody), str(directory.parent)))
    )
    assert told == {"runs_as": nobody, "owner": nobody, "stopped": True}
    assert mode(home) == "0o755"


@as_root
def test_root_without_user_namespaces_becomes_an_account_that_exists(directory: Path) -> None:
    """Where a container refuses namespaces the server runs as an existing account, with its own copy of the programs."""
    accounts_before = pwd.getpwall()
    refusing = directory.parent / "bin"
    refusing.mkdir()
    (refusing / "unshare").write_text(
        "#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n"
    )
    (refusing / "unshare").chmod(0o755)
    path = f"{refusing}:{os.environ['PATH']}"
    told = json.loads(
        answer(run_python(START_AND_TELL, str(directory), "0", str(directory.parent), PATH=path))
    )
    existing = {account.pw_uid for account in accounts_before if account.pw_name in ("postgres", "nobody")}
    assert told["runs_as"] in existing
    assert told["owner"] == told["runs_as"]
    assert told["stopped"]
    assert (directory / "programs").is_dir()
    assert mode(directory) == "0o700"
    assert pwd.getpwall() == accounts_before
