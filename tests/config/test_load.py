"""Configuration: which source wins, where a value came from, and what is never said."""

from pathlib import Path

import pytest

from containerstacks_billing.config.load import Configuration, load
from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.settings import KEYS
from containerstacks_billing.systemd import installed as service_files
from containerstacks_billing.systemd.unit import Unit, written

SECRET = "canary-5d1c6a-of-thirty-characters"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory, where `.env` is the test's own, on a machine without a service."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(service_files, "DIRECTORIES", ())
    return tmp_path


def write_env(directory: Path, text: str) -> Path:
    path = directory / ".env"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_each_source_gives_way_to_the_one_before_it(directory: Path) -> None:
    """Flag, environment, file, credential, default."""
    write_env(directory, "BILLING_WORKERS=3\nBILLING_BATCH_SIZE=300\nPORT=3003\n")
    credentials = directory / "credentials"
    credentials.mkdir()
    (credentials / "port").write_text("3004\n")
    (credentials / "JWT_SECRET").write_text(f"{SECRET}\n")
    environment = {
        "BILLING_WORKERS": "4",
        "BILLING_BATCH_SIZE": "400",
        "CREDENTIALS_DIRECTORY": str(credentials),
    }
    loaded = load({"BILLING_WORKERS": "5"}, environment)
    assert {
        key: (loaded.shown(key), loaded.origins[key].source)
        for key in ("BILLING_WORKERS", "BILLING_BATCH_SIZE", "PORT", "JWT_SECRET", "CURRENCY", "ADMIN_TOKEN")
    } == {
        "BILLING_WORKERS": ("5", "flag"),
        "BILLING_BATCH_SIZE": ("400", "environment"),
        "PORT": ("3003", "file"),
        "JWT_SECRET": ("********", "credential"),
        "CURRENCY": ("USD", "default"),
        "ADMIN_TOKEN": (None, "default"),
    }
    assert str(loaded.origins["PORT"]) == f"{directory / '.env'}, line 3"
    assert str(loaded.origins["BILLING_WORKERS"]) == "--billing-workers"


@pytest.fixture
def service(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A unit that runs this program with a file elsewhere."""
    elsewhere = directory / "opt"
    elsewhere.mkdir()
    write_env(elsewhere, "DATABASE_URL=postgresql:///books\n")
    monkeypatch.setattr(service_files, "DIRECTORIES", (directory,))
    monkeypatch.setattr(service_files, "this_command", lambda: elsewhere / "billing")
    unit = Unit(elsewhere / "billing", elsewhere, elsewhere / ".env", "root", private_env_file=True)
    (directory / unit.name).write_text(written(unit))
    return elsewhere / ".env"


def test_the_installed_service_says_which_database_where_nothing_else_does(service: Path) -> None:
    """A command in any directory uses the configuration of the installed service, and says so."""
    loaded = load({}, {})
    assert str(loaded.origins["DATABASE_URL"]) == f"{service}, line 1"
    assert loaded.remarks == (
        f"There is no .env here: using {service}, the file of containerstacks-billing.service.",
    )
    assert () == loaded.warnings


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        ({"DATABASE_URL": "postgresql:///x"}, {}),
        ({}, {"DATABASE_URL": "postgresql:///x"}),
        ({}, {"CONTAINERSTACKS_BILLING_STATE": "/x"}),
        ({}, {"CREDENTIALS_DIRECTORY": "/x"}),
    ],
)
def test_whoever_names_a_database_gets_no_other(
    service: Path, flags: dict[str, str | None], environment: dict[str, str]
) -> None:
    """Be it the embedded one, by its directory."""
    assert load(flags, environment).env_file is None


def test_another_program_and_an_application_leave_the_service_alone(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout for trials, and a process with built-in billing, must not bill the books of the service."""
    assert load({}, {}, of_service=False).env_file is None
    write_env(service.parent.parent, "PORT=1\n")
    assert service.parent.parent / ".env" == load({}, {}).env_file.path  # type: ignore[union-attr]
    (service.parent.parent / ".env").unlink()
    monkeypatch.setattr(service_files, "this_command", lambda: Path("/elsewhere/billing"))
    assert load({}, {}).env_file is None


@pytest.mark.parametrize(
    ("lines", "file"),
    [
        ("LoadCredential=env:/a/.env\nEnvironment=CONTAINERSTACKS_ENV_FILE=%d/env", "/a/.env"),
        ('Environment="CONTAINERSTACKS_ENV_FILE=/b c/100%%.env"', "/b c/100%.env"),
        ("EnvironmentFile=-/d/.env", "/d/.env"),
        ("WorkingDirectory=/e", "/e/.env"),
        ("User=root", None),
    ],
)
def test_a_unit_names_its_file_in_several_ways(directory: Path, lines: str, file: str | None) -> None:
    """As `service install` writes it, or as an operator did."""
    unit = directory / "x.service"
    unit.write_text(f"[Service]\nExecStart=/x\n{lines}\n")
    found = service_files.read_unit([unit]).env_file
    assert (None if found is None else str(found)) == file


def test_an_empty_text_asks_the_next_source(directory: Path) -> None:
    """`DATABASE_URL=` in a compose file means that it is not set there."""
    write_env(directory, "PORT=3003\nCURRENCY=\n")
    loaded = load({}, {"PORT": "", "CURRENCY": " "})
    assert (loaded.shown("PORT"), loaded.shown("CURRENCY")) == ("3003", "USD")


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_a_named_file_is_read_instead_and_has_to_exist(directory: Path, by: str) -> None:
    """A misspelt name must not fall back to another file."""
    write_env(directory, "PORT=1")
    other = directory / "other"
    other.write_text("PORT=2")
    other.chmod(0o600)

    def named(path: Path) -> Configuration:
        name = {"CONTAINERSTACKS_ENV_FILE": str(path)}
        return load(name if by == "flag" else {}, name if by == "environment" else {})

    assert named(other).shown("PORT") == "2"
    with pytest.raises(ConfigurationError, match="does not exist"):
        named(directory / "nothing")


def test_nothing_at_all_is_a_configuration() -> None:
    """Defaults stand for themselves; who needs a database says so."""
    loaded = load({}, {})
    assert loaded.settings.database_url is None
    assert loaded.warnings == ()
    assert {origin.source for origin in loaded.origins.values()} == {"default"}


def test_a_refusal_says_in_which_line_of_which_file(directory: Path) -> None:
    """Of four sources the operator learns the right one."""
    path = write_env(directory, f"A=b\nBILLING_INTERVAL_MINUTES={SECRET}\n")
    with pytest.raises(ConfigurationError) as refused:
        load({}, {})
    assert str(refused.value) == (
        f"BILLING_INTERVAL_MINUTES ({path}, line 2) must be a whole number from 1 to 1440 (minutes)."
    )


def test_keys_that_were_nearly_ours_are_warned_of(directory: Path) -> None:
    """A misspelt key silently means the default, which goes unnoticed for months."""
    path = write_env(directory, "BILLING_INTERVAL_MINUTE=5\nSTRIPE_SECRET=x\n")
    assert load({}, {"HEARTBEAT_SECOND": "5"}).warnings == (
        f"BILLING_INTERVAL_MINUTE in {path}, line 1, is ignored; BILLING_INTERVAL_MINUTES may be meant.",
        "HEARTBEAT_SECOND in the environment is ignored; HEARTBEAT_SECONDS may be meant.",
    )


@pytest.mark.parametrize(
    "url",
    [
        f"postgres://u:p@{SECRET}@h/d",
        f"postgres://u:{SECRET}/x@h/d",
        f"postgres://u:%zz{SECRET}@h/d",
        f"host=h password='{SECRET}",
        f"mysql://u:{SECRET}@h/d",
        SECRET,
    ],
)
def test_a_malformed_database_url_is_refused_without_being_quoted(url: str) -> None:
    """The driver would quote it."""
    with pytest.raises(ConfigurationError, match=r"DATABASE_URL \(environment\)") as refused:
        load({}, {"DATABASE_URL": url})
    assert SECRET not in f"{refused.value} {refused.value.hint} {refused.value.__cause__}"


def test_weak_transport_and_foreign_parameters_are_said_out_loud() -> None:
    """A Node.js program accepts more than PostgreSQL does, and less care."""
    loaded = load({}, {"DATABASE_URL": f"postgresql://u:{SECRET}@db.example/d?schema=public"})
    assert [warning.split(";")[0] for warning in loaded.warnings] == [
        "The parameter schema of DATABASE_URL means nothing to PostgreSQL and is ignored.",
        "The connection to db.example uses sslmode=prefer, which does not prove who answers",
    ]


def test_a_password_given_as_a_flag_is_warned_of() -> None:
    """Any user of the machine can list processes."""
    loaded = load({"DATABASE_URL": f"postgresql://u:{SECRET}@localhost/d"}, {})
    assert loaded.warnings == (
        "The password in --database-url is visible in the process list; DATABASE_URL is not.",
    )


def test_no_secret_is_ever_shown() -> None:
    """Neither whole nor as part of the database's address; `secrets` knows them all for the logs."""
    environment = {
        "DATABASE_URL": f"postgresql://u:{SECRET}%21@localhost/d",
        "ADMIN_TOKEN": f"{SECRET}-{SECRET}",
        "JWT_SECRET": SECRET,
        "WEBHOOK_URL": f"https://hooks.example/{SECRET}",
        "WEBHOOK_SECRET": SECRET,
    }
    loaded = load({}, environment)
    assert SECRET not in str([loaded.shown(key) for key in KEYS]) + repr(loaded.settings)
    assert loaded.shown("DATABASE_URL") == "u@localhost:5432/d"
    assert f"{SECRET}!" in loaded.secrets()
