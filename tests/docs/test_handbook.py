"""The documents are true: their links lead somewhere, their statements run, their commands exist and work.

A machine of our own runs every command line of the handbook, in its order. What a machine cannot run stands in NOT_RUN,
with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.command import Command
from tests.daemons import ROOT
from tests.systemd_container import HOME, UNIT, Machine, Refused, booted

DOCS = ROOT / "docs"
HANDBOOK = DOCS / "billing-daemon.md"
PAGES = [
    HANDBOOK,
    DOCS / "billing-service.md",
    DOCS / "statements.md",
    DOCS / "upgrading.md",
    *sorted((DOCS / "releases").glob("*.md")),
    DOCS / "database-schema.md",
    DOCS / "api" / "health-endpoints.md",
    DOCS / "troubleshooting" / "common-issues.md",
]
NOT_RUN = {
    "sudo apt-get install ./containerstacks-billing_0.1.0_amd64.deb": "tests/systemd/test_debian_package.py installs the package",
    "sudoedit /etc/containerstacks-billing/env": "opens an editor",
    "sudo env PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install ./containerstacks_billing-0.1.0-py3-none-any.whl": "downloads libraries; tests/systemd/test_debian_package.py does it from a directory",
    "sudo env UV_TOOL_DIR=/opt/uv UV_TOOL_BIN_DIR=/usr/local/bin uv tool install ./containerstacks_billing-0.1.0-py3-none-any.whl": "downloads libraries",
    "sudo git clone REPOSITORY /opt/containerstacks": "the repository is the operator's to name, and needs a network",
    "sudo env PYTHON=/usr/bin/python3 ./dev --version": "downloads libraries; the tests of ./dev do it",
    "sudo ln -sf /opt/containerstacks/.venv/bin/containerstacks-billing /usr/local/bin/": "done when the machine is furnished",
    "sudo useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin"
    " containerstacks-billing": "`service install --create-user` has created the user before",
    "containerstacks-billing drill": "takes a minute and a half; it has tests of its own",
    "sudo systemctl edit containerstacks-billing.service": "opens an editor",
    "sudo systemctl status postgresql": "the server of the machine is not Debian's service",
    'sudo dmesg | grep -i "out of memory"': "a container may not read the kernel's log; and nothing was out of memory",
}
# Follows the log until it is interrupted.
FOLLOWS = "sudo journalctl -u containerstacks-billing.service -f"
# Fails, as the sentence above it says, where .env is readable by root alone, as it is on this machine.
RELOADS = "sudo systemctl reload containerstacks-billing.service"
ENV = """\
DATABASE_URL=postgresql://postgres@127.0.0.1:5432/containerstacks
BILLING_INTERVAL_MINUTES=60
HEARTBEAT_SECONDS=2
ADMIN_TOKEN=a-token-of-at-least-24-characters
"""


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def command_lines(page: Path) -> list[str]:
    """Return every command line, in order."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that exists, and to a heading in it."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_statements_run(page: Path, database: str) -> None:
    """On a migrated database, as they stand there."""
    for statement in blocks(page, "sql"):
        with psycopg.connect(database, autocommit=True) as conn:
            conn.execute(statement.encode())


def test_tables_and_columns_exist(database: str) -> None:
    """What the page about the schema names is there; a table of ours that it does not name is missing in it."""
    named = set(re.findall(r"`([a-z_]+)`", (DOCS / "database-schema.md").read_text()))
    with psycopg.connect(database, autocommit=True) as conn:
        tables = {
            name
            for (name,) in conn.execute(
                "select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'"
            )
        }
        columns = {
            name
            for (name,) in conn.execute(
                "select column_name from information_schema.columns where table_schema = 'public'"
            )
        }
    assert set() == {table for table in tables if table not in named}
    words = {"billed", "failed", "running", "stopped", "error", "wallet_debit", "as_of", "doctor", "grants", "runs", "status",
             "verify"}  # fmt: skip
    # Keys of the metadata of an entry.
    words |= {"carry_before", "exact_amount", "period_start", "period_end"}
    assert set() == named - tables - columns - words


def test_the_fields_of_the_health_answer_are_those_that_are_described() -> None:
    """Names in the page are names in the answer, and the other way round."""
    from pydantic.alias_generators import to_camel

    from containerstacks_billing.web.schemas import BuiltIn, Daemon

    page = (DOCS / "api" / "health-endpoints.md").read_text()
    table = page.split("`success`, `timestamp` and `daemon` with these fields:")[1]
    named = set(re.findall(r"`([a-z]+[A-Za-z]*)`", table)) - {
        "stopped",
        "error",
        "daemon",
        "built",
        "host",
        "nobody",
    }
    fields = {to_camel(name) for answer in (Daemon, BuiltIn) for name in answer.model_fields}
    assert (set(), set()) == (fields - named, named - fields)


def test_paths_of_the_api_exist() -> None:
    """Every path in the table of endpoints is served."""
    sources = "\n".join(p.read_text() for p in (ROOT / "src/containerstacks_billing/web").glob("*.py"))
    for path in re.findall(r"`GET (/\S+)`", (DOCS / "api" / "health-endpoints.md").read_text()):
        written = {path, path.removeprefix("/api/billing"), "/" + path.rsplit("/", 1)[1]}
        assert any(f'"{one}"' in sources for one in written), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_and_options_exist(page: Path) -> None:
    """Every command of ours in a block or a sentence is one that the program knows."""
    import click

    from containerstacks_billing.cli import app

    inline = re.findall(r"`(?:sudo )?(containerstacks-billing [^`]+)`", page.read_text())
    lines = [line.removeprefix("sudo ").split("|")[0] for line in command_lines(page)]
    for line in [*inline, *(line for line in lines if line.startswith("containerstacks-billing "))]:
        command: click.Command = app
        words = shlex.split(line)[1:]
        while words and hasattr(command, "commands"):
            if words[0].startswith("-") and command.params:
                break
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def stories() -> list[str]:
    """Return the command lines about money, whose ids are those of a fleet; a test of their own runs them."""
    section = HANDBOOK.read_text().split("## Questions about money\n")[1].split("\n## ")[0]
    found = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


def test_every_command_of_the_stories_about_money_works(
    conn: psycopg.Connection[object], command: Command, database: str, tmp_path: Path
) -> None:
    """One after the other, for a customer who was billed in October and November, in December."""
    from tests.fleet import Fleet

    fleet = Fleet(conn, at="2026-10-30 00:00", max_catch_up_hours=10_000)
    acme = fleet.organization("100.00", name="Acme")
    web = fleet.instance(acme, fleet.plan("5.00"), label="web")
    conn.execute("update vps_plans set name = 'Small VPS'")
    conn.execute("""update vps_instances set configuration = '{"region": "fra"}'""")
    for at, price in (
        ("2026-11-01 12:00", "5.00"),
        ("2026-11-14 03:00", "7.00"),
        ("2026-11-14 09:00", "5.00"),
        ("2026-12-01 01:30", "5.00"),
    ):
        fleet.at(at)
        fleet.reprice(conn.execute("select id from vps_plans").fetchone()[0], price)  # type: ignore[index]
        fleet.bill()
    entry = fleet.rows("select id from payment_transactions order by created_at desc limit 1")[0].id
    nodes = tmp_path / "nodes.csv"
    nodes.write_text("id\n" + fleet.rows("select provider_instance_id as id from vps_instances")[0].id + "\n")
    at = fleet.now.timestamp()
    os.utime(nodes, (at, at))
    ids = {"ENTRY": str(entry), "INSTANCE": str(web), "ORGANIZATION": str(acme), "nodes.csv": str(nodes)}

    ran = 0
    for line in stories():
        words = [re.sub("|".join(ids), lambda found: ids[found[0]], word) for word in shlex.split(line)]
        done = command(*words[1:], environment={"DATABASE_URL": database})
        assert (0, "") == (done.returncode, done.stderr), line + done.stdout
        ran += 1
    assert ran >= 30


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


@pytest.mark.slow
def test_every_command_line_of_the_handbook_works(machine: Machine) -> None:
    """As root on a machine with a database, from installation to removal, each line in its turn."""
    machine.write(f"{HOME}/.env", ENV, "600")
    url = "DATABASE_URL=postgresql://postgres@127.0.0.1:5432/containerstacks"
    token, failed, ran = "", [], 0
    lines = command_lines(HANDBOOK)
    assert [] == [line for line in NOT_RUN if line not in lines]
    for line in lines:
        if line in NOT_RUN or line in stories():
            continue
        text = line.replace("sudo ", "").replace("YOUR_ADMIN_TOKEN", token)
        if line == FOLLOWS:
            text = f"timeout 1 {text}; test $? -eq 124"
        if line == RELOADS:
            text = f"! {text}"
        if text.startswith("curl"):
            text = f"{text} --fail --silent --retry 20 --retry-connrefused --retry-delay 1"
        given = f"export {url}; " if "$DATABASE_URL" in text else ""
        done = machine.run("bash", "-c", f"cd {HOME} && {given}{text}")
        ran += 1
        if done.returncode:
            failed.append(f"{line}: {done.returncode}\n{done.stdout[-800:]}\n{done.stderr[-800:]}")
        if "token create" in line:
            token = done.stdout.strip()
        if line.endswith("service uninstall"):
            machine.do("containerstacks-billing", "--env-file", f"{HOME}/.env", "service", "install")
    assert [] == failed
    assert ran > 50
    assert machine.run("systemctl", "cat", UNIT).returncode == 1


def test_a_restored_watermark_behind_the_charges_is_found(conn: psycopg.Connection[object]) -> None:
    """What the page about backups says: verify finds it until the next run, which goes on where the charges end."""
    from tests.fleet import Fleet

    from containerstacks_billing.verification.verify import verify

    fleet = Fleet(conn)
    instance = fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"))
    fleet.hours(3)
    fleet.bill()
    before = fleet.rows("select * from vps_instances where id = %s", instance)[0]
    fleet.hours(3)
    fleet.bill()
    charged = fleet.charges()
    assert verify(fleet.conninfo).ok
    # The table of instances alone comes back from the backup, as a restore writes it: past the triggers.
    conn.execute("alter table vps_instances disable trigger user")
    conn.execute(
        "update vps_instances set last_billed_at = %s, rated_until = %s where id = %s",
        (before.last_billed_at, before.rated_until, instance),
    )
    conn.execute("alter table vps_instances enable trigger user")
    found = verify(fleet.conninfo)
    assert (False, True) == (found.ok, any(str(instance) in str(one) for one in found.discrepancies))
    fleet.bill()
    assert (charged, {}) == (fleet.charges(), fleet.quarantine())
    assert verify(fleet.conninfo).ok
