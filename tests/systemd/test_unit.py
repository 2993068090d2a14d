"""The units and what is looked at before they are installed, without a systemd that runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.command import Command

from containerstacks_billing.doctor import Finding, host, unit
from containerstacks_billing.doctor.unit import apply_hint
from containerstacks_billing.systemd import access as service_paths
from containerstacks_billing.systemd import systemctl as service_control
from containerstacks_billing.systemd.access import Account, examine_env_file, examine_executable
from containerstacks_billing.systemd.install import uninstall
from containerstacks_billing.systemd.installed import read_unit
from containerstacks_billing.systemd.systemctl import UnitState
from containerstacks_billing.systemd.unit import APP_UNIT, DAEMON_UNIT, Unit, delivered, written

ROOT = Path(__file__).resolve().parents[2]
NOBODY = Account("nobody", 65534, 65534, frozenset({65534}))
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may give files away and act as another user"
)


def texts(findings: Iterable[Finding]) -> list[str]:
    return [f"{finding.level} {finding.message}" for finding in findings]


def program(directory: Path, text: str = "#!/bin/sh\necho 1\n") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "billing"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", delivered())
def test_the_delivered_units_are_those_that_an_installation_writes(name: str) -> None:
    """One source; a change of the one without the other would be found by an operator."""
    assert written(delivered()[name]) == (ROOT / "systemd" / name).read_text()


def test_the_guide_that_a_unit_names_is_installed_beside_its_command() -> None:
    """`systemctl help` opens Documentation=; the environment of these tests is installed as any other."""
    command = Path(sys.prefix) / "bin" / "containerstacks-billing"
    unit_text = written(replace(delivered()[DAEMON_UNIT], executable=command))
    named = re.search(r"^Documentation=file://(.+)$", unit_text, re.MULTILINE)
    assert named is not None
    # The heading alone: what a checkout installed is as old as the installation.
    heading = (ROOT / "docs" / "billing-daemon.md").read_text().splitlines()[0]
    assert heading == Path(named[1]).read_text().splitlines()[0]


@needs_systemd
@pytest.mark.parametrize("name", delivered())
def test_systemd_has_nothing_to_remark(name: str, tmp_path: Path) -> None:
    """No unknown key, no wrong value; and little to attack, where the unit is hardened."""
    here = replace(delivered()[name], executable=program(tmp_path / "opt"), directory=tmp_path)
    file = tmp_path / here.name
    file.write_text(written(here))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    if here.hardened:
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", file]
        subprocess.run(command, capture_output=True, check=True)


@needs_systemd
def test_odd_paths_mean_themselves(tmp_path: Path) -> None:
    """Spaces, percent signs and dollars in a path are no syntax."""
    odd = tmp_path / "100% our $HOME"
    here = Unit(program(odd / "bin"), odd, odd / ".env", "root")
    file = tmp_path / here.name
    file.write_text(written(here))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    found = read_unit([file])
    assert str(odd / ".env").replace("%", "%%") == found.environment["CONTAINERSTACKS_ENV_FILE"]


def test_a_reload_takes_effect_or_fails_and_names_the_restart(tmp_path: Path) -> None:
    """A copy of the start cannot be read again; what the unit then runs ends with 1 and says what to do."""
    here = delivered()["containerstacks-billing.service"]
    assert "ExecReload=/bin/kill -HUP $MAINPID" in written(replace(here, private_env_file=False))
    (line,) = re.findall(r"^ExecReload=(.*)$", written(here), re.MULTILINE)
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=False)
    assert 1 == done.returncode
    assert done.stdout.startswith('<3>level=error event="Nothing was reloaded')
    assert "systemctl restart containerstacks-billing.service" in done.stdout
    for private, verb in ((True, "restart"), (False, "reload")):
        file = tmp_path / here.name
        file.write_text(written(replace(here, private_env_file=private)))
        assert f"systemctl {verb} containerstacks-billing.service" == apply_hint([file])


def test_pauses_grow_where_systemd_knows_how() -> None:
    """Older versions would warn of a key that they do not know."""
    here = delivered()["containerstacks-billing.service"]
    assert "RestartSteps" not in written(here)
    assert "RestartMaxDelaySec=5min" in written(replace(here, systemd_version=255))


def test_a_dry_run_shows_the_unit_and_changes_nothing(command: Command, tmp_path: Path) -> None:
    """On standard output, so that it can be looked at and kept; with what stands in the way beside it."""
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql:///x\n")
    (tmp_path / ".env").chmod(0o600)
    done = command("service", "install", "--dry-run", "--user", "no-such-user-here")
    assert done.returncode == 78
    assert "User=no-such-user-here" in done.stdout
    assert f"LoadCredential=env:{tmp_path}/.env" in done.stdout
    assert "217/USER: the user no-such-user-here does not exist" in done.stderr
    assert "Would: systemctl daemon-reload" in done.stderr


def test_what_is_advised_installs_the_unit_that_was_meant(command: Command, tmp_path: Path) -> None:
    """The application side is no daemon."""
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql:///x\n")
    (tmp_path / ".env").chmod(0o600)
    said = command("service", "install", "--app", "--dry-run", "--user", "no-such-user-here").stderr
    assert "sudo containerstacks-billing service install --app --create-user" in said


@pytest.mark.parametrize(
    ("name", "was", "properties", "said"),
    [
        (
            DAEMON_UNIT,
            "active",
            {"Result": "success"},
            "it ended by itself, after the billing cycle that it was in.",
        ),
        (DAEMON_UNIT, "active", {"Result": "timeout"}, ": timeout."),
        (
            DAEMON_UNIT,
            "active",
            {"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"},
            ": ended by signal 9.",
        ),
        (DAEMON_UNIT, "failed", {"Result": "exit-code"}, "was not running."),
        (APP_UNIT, "active", {"Result": "success"}, f"Stopped {APP_UNIT}."),
    ],
)
def test_a_removal_says_of_the_stop_what_systemd_says(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    was: str,
    properties: dict[str, str],
    said: str,
) -> None:
    """Whether a cycle was completed is not for us to claim."""
    (tmp_path / name).touch()
    states = iter([UnitState(name, {"ActiveState": was}), UnitState(name, properties)])
    monkeypatch.setattr(service_control, "UNIT_DIRECTORY", tmp_path)
    monkeypatch.setattr(service_control, "state_of", lambda _: next(states))
    monkeypatch.setattr(service_control, "systemctl", lambda *_: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert next(uninstall(name, dry_run=False)).endswith(said)


def test_nothing_to_show_and_nothing_to_remove(command: Command) -> None:
    """Neither is a failure."""
    assert "is not installed" in command("service", "show").stdout
    assert "nothing to remove" in command("service", "uninstall", "--dry-run").stderr


# 203/EXEC.


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    """The first step that is missing is named, not the whole path."""
    found = examine_executable(tmp_path / "node_modules" / ".bin" / "tsx", NOBODY, hardened=False)
    assert any(
        text.endswith(f"203/EXEC: {tmp_path}/node_modules does not exist.") for text in texts(found)
    ) or any("cannot pass through" in text for text in texts(found))


@as_root
def test_a_directory_that_the_user_cannot_enter(tmp_path: Path) -> None:
    """Every parent counts, behind a link too."""
    closed = tmp_path / "closed"
    target = program(closed / "bin")
    for directory in (*tmp_path.parents[:3], tmp_path):
        if directory != Path("/tmp"):
            directory.chmod(0o755)
    (tmp_path / "link").symlink_to(closed / "bin")
    assert "OK" == examine_executable(tmp_path / "link" / "billing", NOBODY, hardened=False)[0].level
    closed.chmod(0o700)
    found = examine_executable(tmp_path / "link" / target.name, NOBODY, hardened=False)
    assert [f"FAIL 203/EXEC: nobody cannot pass through {closed} (mode 0700)."] == texts(found)
    assert f"Let it through: chmod o+x {closed}, or install under /opt/containerstacks." == found[0].hint


@as_root
def test_an_interpreter_that_is_gone(tmp_path: Path) -> None:
    """A script is executable only if its first line leads to something that is."""
    script = program(tmp_path, f"#!{tmp_path}/gone/python\n")
    user = Account("root", 0, 0, frozenset({0}))
    assert [f"FAIL 203/EXEC: {tmp_path}/gone does not exist."] == texts(
        examine_executable(script, user, hardened=False)
    )


@as_root
def test_a_program_that_others_can_change(tmp_path: Path) -> None:
    """It runs with the database's password, so who can write it has that too."""
    script = program(tmp_path / "opt")
    script.chmod(0o757)
    user = Account("root", 0, 0, frozenset({0}))
    assert [f"WARN {script} can be changed by all users, who could make the daemon run anything."] == texts(
        examine_executable(script, user, hardened=False)
    )


def test_a_home_is_hidden_from_the_hardened_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ProtectHome= makes 203/EXEC out of a path that exists."""
    monkeypatch.setattr(service_paths, "_HOMES", (tmp_path,))
    found = texts(examine_executable(program(tmp_path / "me"), NOBODY, hardened=True))
    assert "ProtectHome=yes" in found[0]


# Permission denied.


@as_root
def test_an_environment_file_that_the_user_may_not_read(tmp_path: Path) -> None:
    """Named with owner and mode; handed over by systemd it is no obstacle; open to all it is refused."""
    file = tmp_path / ".env"
    file.write_text("A=1\n")
    file.chmod(0o600)
    assert "Permission denied: nobody" in examine_env_file(file, NOBODY)[0].message
    assert "OK" == examine_env_file(file, NOBODY, handed_over=True)[0].level
    file.chmod(0o644)
    assert f"Run: chmod 600 {file}" == examine_env_file(file, NOBODY)[0].hint


# How the service ended.


def how(**properties: str) -> dict[str, Finding]:
    base = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success",
            "NRestarts": "0", "WatchdogUSec": "2min", "ExecMainCode": "0", "ExecMainStatus": "0"}  # fmt: skip
    return {f.check: f for f in unit.how_it_is(UnitState("x.service", {**base, **properties}))}


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        (
            {"ExecMainCode": "1", "ExecMainStatus": "203"},
            "exit 203 (203/EXEC: the program cannot be executed)",
        ),
        ({"ExecMainCode": "1", "ExecMainStatus": "217"}, "exit 217 (217/USER: the user does not exist)"),
        ({"ExecMainCode": "1", "ExecMainStatus": "78"}, "exit 78 (the configuration or the schema is wrong)"),
        ({"ExecMainCode": "1", "ExecMainStatus": "243"}, "243/CREDENTIALS"),
        ({"Result": "oom-kill", "ExecMainCode": "2", "ExecMainStatus": "9"}, "because memory was short"),
        ({"Result": "watchdog", "ExecMainCode": "3", "ExecMainStatus": "6"}, "the watchdog timed out"),
        ({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"}, "ended by signal 9"),
    ],
)
def test_a_service_that_failed_says_how(properties: dict[str, str], said: str) -> None:
    """The numbers of systemd in words, each with what to do."""
    found = how(ActiveState="failed", SubState="failed", **properties)["service"]
    assert (True, True) == (said in found.message, bool(found.hint))
    assert found.message.startswith("The service is failed: ")


def test_a_service_that_lives_may_be_looked_at_too() -> None:
    """Restarts, no watchdog, much memory; a stopped service is only stopped."""
    assert ["service"] == list(how())
    assert "restarted the service 3 times" in how(NRestarts="3")["restarts"].message
    activating = how(ActiveState="activating", SubState="auto-restart")["service"]
    assert activating.message.startswith("The service is activating (auto-restart): ")
    assert "WatchdogSec=" in how(WatchdogUSec="0")["watchdog"].message
    assert "BILLING_BATCH_SIZE" in str(how(MemoryCurrent=str(2 * 1024**3))["memory of the service"].hint)
    assert "systemctl start" in str(how(ActiveState="inactive", SubState="dead")["service"].hint)


def test_memory_that_is_short_is_named(tmp_path: Path) -> None:
    """Little left, or processes that the kernel has ended: "out of memory" in the log of the kernel."""
    table = tmp_path / "meminfo"
    table.write_text("MemTotal: 2000000 kB\nMemAvailable: 50000 kB\n")
    (tmp_path / "vmstat").write_text("oom_kill 0\n")
    assert "ps aux" in str(next(host.memory(table)).hint)
    table.write_text("MemTotal: 2000000 kB\nMemAvailable: 1500000 kB\n")
    assert next(host.memory(table)).level == "OK"
    (tmp_path / "vmstat").write_text("oom_kill 2\n")
    assert "dmesg" in str(next(host.memory(table)).hint)


def test_a_file_that_systemd_reads_itself(tmp_path: Path) -> None:
    """Lines that it reads differently are named by line and key, never by value; a missing file stops the start."""
    file = tmp_path / ".env"
    file.write_text(
        'DATABASE_URL="postgresql:///x"\nBILLING_INTERVAL_MINUTES=30 # half\nexport PORT=3002\nOTHER=a\\b\n'
    )
    file.chmod(0o600)
    found = texts(unit.environment_file(str(file)))
    assert ["line 2", "line 3"] == [text.split(", ")[1].split(":")[0] for text in found]
    assert "so systemd refuses to start" in texts(unit.environment_file(f"{tmp_path}/none"))[0]
    assert [] == texts(unit.environment_file(f"-{tmp_path}/none"))


def test_a_unit_of_another_program_is_examined_too(tmp_path: Path) -> None:
    """The unit of the original program, whose tsx was never installed."""
    file = tmp_path / "containerstacks-billing.service"
    file.write_text(
        f"[Service]\nUser=root\nWorkingDirectory={tmp_path}\nExecStart={tmp_path}/node_modules/.bin/tsx x\n"
    )
    assert any("203/EXEC" in text and "node_modules" in text for text in texts(unit.unit([file])))


def test_debits_of_another_biller_are_named(command: Command, database: str) -> None:
    """What charges twice is a scheduler that knows no lease; its debits carry no key of ours."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("insert into users (email, password_hash, name) values ('o@example.org', 'x', 'O')")
        conn.execute("insert into organizations (name, slug, owner_id) select 'O', 'o', id from users")
        conn.execute(
            "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status,"
            " description) select id, -1, 'USD', 'wallet_debit', 'internal', 'completed', 'VPS Hourly Billing - web (1h)' from organizations"
        )
    said = command("doctor", environment={"DATABASE_URL": database}).stdout
    assert "WARN other billers: In the last day 1 wallet debits were written that are not ours" in said
