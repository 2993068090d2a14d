"""`config show`: values, origins, masks, and refusals with 78."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "canary-5d1c6a-of-thirty-characters"
ENVIRONMENT = {
    "DATABASE_URL": f"postgresql://u:{SECRET}@localhost/d",
    "ADMIN_TOKEN": f"{SECRET}-0123456789-0123456789",
    "JWT_SECRET": SECRET,
    "WEBHOOK_URL": f"https://hooks.example/{SECRET}",
    "WEBHOOK_SECRET": SECRET,
}


def write_env(directory: Path, text: str, mode: int = 0o600) -> None:
    (directory / ".env").write_text(text)
    (directory / ".env").chmod(mode)


def test_values_and_origins_are_shown_and_secrets_masked(command: Command, tmp_path: Path) -> None:
    """Where does it get that from? is answered for every setting."""
    write_env(tmp_path, "BILLING_INTERVAL_MINUTES=30\nBILLING_WORKER=1\n")
    outcome = command("config", "show", environment=ENVIRONMENT)
    assert outcome.returncode == 0
    assert "u@localhost:5432/d" in outcome.stdout
    assert "********" in outcome.stdout
    assert "BILLING_WORKERS may be meant" in outcome.stderr
    assert SECRET not in outcome.stdout + outcome.stderr


def test_json_is_one_document(command: Command, tmp_path: Path) -> None:
    """For scripts: one entry per key, with the kind of its origin."""
    write_env(tmp_path, "BILLING_INTERVAL_MINUTES=30\n")
    outcome = command("config", "show", "--json", environment=ENVIRONMENT)
    document = json.loads(outcome.stdout)
    settings = {entry["key"]: entry for entry in document["settings"]}
    interval, url = settings["BILLING_INTERVAL_MINUTES"], settings["DATABASE_URL"]
    assert (interval["value"], interval["origin"]) == ("30", "file")
    assert interval["place"] == f"{tmp_path / '.env'}, line 1"
    assert (url["value"], url["origin"], url["secret"]) == ("u@localhost:5432/d", "environment", True)
    assert document["envFile"] == str(tmp_path / ".env")
    assert SECRET not in outcome.stdout


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (f"BILLING_INTERVAL_MINUTES={SECRET}", 0o600, "BILLING_INTERVAL_MINUTES"),
        ("BILLING_INTERVAL_MINUTES=0", 0o600, "must be a whole number from 1 to 1440"),
        (f"DATABASE_URL {SECRET}", 0o600, "line 1: DATABASE_URL is not KEY=value"),
        (f"DATABASE_URL=postgres://u:%zz{SECRET}@h/d", 0o600, "DATABASE_URL"),
        (f"JWT_SECRET={SECRET}", 0o644, "chmod 600"),
    ],
)
def test_a_bad_file_is_refused_with_78(
    command: Command, tmp_path: Path, text: str, mode: int, words: str
) -> None:
    """Key, place and what to do; never the value."""
    write_env(tmp_path, text, mode)
    outcome = command("config", "show")
    assert outcome.returncode == 78
    assert words in outcome.stderr
    assert SECRET not in outcome.stdout + outcome.stderr
    assert outcome.stdout == ""
