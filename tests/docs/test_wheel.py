"""The wheel: the same bytes from the same checkout, with the man page, the documents, the units, the alerts and the dashboard."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
SHARED = re.compile(r"containerstacks_billing-[^/]+\.data/data/(share/.+)")
DOCUMENTS = "share/doc/containerstacks-billing"
# Paths of a checkout as prose writes them; decisions are not read by operators alone, but their links must hold as well.
NAMED_PATH = re.compile(r"`((?:docs|systemd|deploy)/[\w./-]+\.\w+)`")


def build(target: Path) -> Path:
    """Build the wheel of this checkout into `target`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One wheel for the tests of this module."""
    return build(tmp_path_factory.mktemp("wheel"))


def shared_files(wheel: Path) -> dict[str, str]:
    """What the wheel installs under `share/` of an environment: text by path."""
    with zipfile.ZipFile(wheel) as archive:
        found = ((SHARED.fullmatch(name), name) for name in archive.namelist())
        return {match[1]: archive.read(name).decode() for match, name in found if match}


def test_the_wheel_has_the_man_page_units_alerts_dashboard_and_documents(wheel: Path) -> None:
    """The man page stands where `man` looks, the rest in the tree of the checkout, byte by byte the same."""
    files = shared_files(wheel)
    assert (ROOT / "docs/man/containerstacks-billing.1").read_text() == files[
        "share/man/man1/containerstacks-billing.1"
    ]
    for name in (
        "systemd/containerstacks-billing.service",
        "systemd/containerstacks-billing-app.service",
        "deploy/prometheus/alerts.yml",
        "deploy/grafana/dashboard.json",
        "docs/billing-daemon.md",
        "docs/runbook.md",
        "SECURITY.md",
    ):
        assert (ROOT / name).read_text() == files[f"{DOCUMENTS}/{name}"]


def test_every_path_that_an_installed_document_names_is_installed_too(wheel: Path) -> None:
    """`deploy/prometheus/alerts.yml` in the text of docs/monitoring.md is a file beside it in the wheel."""
    files = shared_files(wheel)
    documents = {name: text for name, text in files.items() if name.endswith(".md")}
    named = {(name, path) for name, text in documents.items() for path in NAMED_PATH.findall(text)}
    assert (f"{DOCUMENTS}/docs/monitoring.md", "deploy/prometheus/alerts.yml") in named
    assert set() == {
        (name, path) for name, path in named if str(PurePosixPath(DOCUMENTS) / path) not in files
    }


def test_a_wheel_built_again_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """The checksum of a wheel proves what it was built from."""
    assert (
        hashlib.sha256(wheel.read_bytes()).hexdigest()
        == hashlib.sha256(build(tmp_path).read_bytes()).hexdigest()
    )
