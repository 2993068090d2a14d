"""Settings from flags, environment, `.env`, credential files and defaults, in this order of precedence.

`.env` is that of the working directory. Where there is none and nothing else names a database, it is that of the
installed service: `status` on that machine should show the books that are billed there.

Every value keeps its origin, which `config show` and every refusal of a value name. An empty value counts as not set:
`KEY=` in a compose file means "not here".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from containerstacks_billing.config.dotenv import EnvFile, read_env_file, read_regular_file
from containerstacks_billing.database.conninfo import describe, read, transport_warning
from containerstacks_billing.errors import ConfigurationError, OthersFile
from containerstacks_billing.settings import KEYS, Settings, default_text, is_secret, near_miss, settings_from
from containerstacks_billing.systemd.installed import env_file_of_service

ENV_FILE_KEY = "CONTAINERSTACKS_ENV_FILE"
STATE_KEY = "CONTAINERSTACKS_BILLING_STATE"
MASKED = "********"
_LARGEST_CREDENTIAL_BYTES = 65_536

# The flags that are not called like their key.
_FLAGS = {"BILLING_INTERVAL_MINUTES": "--interval"}

Source = Literal["flag", "environment", "file", "credential", "default"]


@dataclass(frozen=True)
class Origin:
    """Where a value came from: the kind of source, and the place in words for people."""

    source: Source
    place: str

    def __str__(self) -> str:
        return self.place


@dataclass(frozen=True)
class Configuration:
    """Valid settings, the origin of each by key, the file that was read, and what is to be said of it once.

    `warnings` name what may be wrong, `remarks` what is well and worth knowing.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...]
    env_file: EnvFile | None
    remarks: tuple[str, ...] = ()

    @property
    def is_copy_of_start(self) -> bool:
        """Whether the file is a credential, a copy that systemd makes when it starts a service and at no other time."""
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        return bool(directory and self.env_file and self.env_file.path.is_relative_to(directory))

    def shown(self, key: str) -> str | None:
        """Return the value of a key for people: secrets masked, None when it is not set."""
        value = getattr(self.settings, key.lower())
        if value is None:
            return None
        if key == "DATABASE_URL":
            return describe(value.get_secret_value())
        if is_secret(key):
            return MASKED
        return ",".join(value) if isinstance(value, tuple) else str(value)

    def secrets(self) -> tuple[str, ...]:
        """Return every secret value, for the redaction of logs; never to be shown."""
        values = (getattr(self.settings, key.lower()) for key in KEYS if is_secret(key))
        texts = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        if self.settings.database_url is not None:
            texts.append(read(self.settings.database_url.get_secret_value()).parameters.get("password", ""))
        return tuple(text for text in texts if text)


def load(
    flags: Mapping[str, str | None], environment: Mapping[str, str] | None = None, *, of_service: bool = True
) -> Configuration:
    """Gather the configuration; `flags` holds texts by key, None where a flag was not given.

    `of_service` allows the file of the installed service; not for an application that holds built-in billing.
    Raises ConfigurationError naming key, origin and accepted range, never a value.
    """
    environment = os.environ if environment is None else environment
    env_file = _env_file(flags, environment)
    borrowed = None
    if env_file is None and of_service and not _says_which_database(flags, environment):
        env_file, borrowed = _env_file_of_service()
    texts: dict[str, str] = {}
    origins: dict[str, Origin] = {}
    for key in KEYS:
        found = _first(key, flags, environment, env_file)
        if found is None:
            origins[key] = Origin("default", "default" if default_text(key) is not None else "not set")
        else:
            texts[key], origins[key] = found
    settings = settings_from(
        texts,
        where=lambda key: f" ({origins[key]})",
        hint=lambda keys: "\n".join(_remedy(key, origins[key]) for key in keys),
    )
    warnings = [*(env_file.warnings if env_file else ()), *_near_misses(environment, env_file)]
    warnings += _database_warnings(settings, origins["DATABASE_URL"])
    return Configuration(settings, origins, tuple(warnings), env_file, (borrowed,) if borrowed else ())


def _remedy(key: str, origin: Origin) -> str:
    """Return what to do about a refused value, depending on its origin."""
    match origin.source:
        case "flag":
            return f"Correct {origin.place}, or leave it out to use the default."
        case "environment":
            return f"Correct {key}, or unset it to use the default."
        case "credential":
            return f"Correct the {origin.place}, or leave it out to use the default."
        case _:
            return f"Correct {key}, or remove the line to use the default."


def log_form(
    flags: Mapping[str, str | None], environment: Mapping[str, str] | None = None
) -> Literal["auto", "terminal", "logfmt", "json"]:
    """Return the LOG_FORMAT of a refused configuration, for the error itself; auto if unknown."""
    environment = os.environ if environment is None else environment
    try:
        env_file = _env_file(flags, environment)
    except ConfigurationError:
        env_file = None
    found = _first("LOG_FORMAT", flags, environment, env_file)
    try:
        return settings_from({"LOG_FORMAT": found[0]} if found else {}).log_format
    except ConfigurationError:
        return "auto"


def _env_file(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> EnvFile | None:
    """Read the file that was asked for, which must exist, else `.env` of the working directory, which may."""
    asked = flags.get(ENV_FILE_KEY) or environment.get(ENV_FILE_KEY)
    env_file = read_env_file(Path(asked or ".env").absolute())
    if asked and env_file is None:
        by = "--env-file" if flags.get(ENV_FILE_KEY) else ENV_FILE_KEY
        raise ConfigurationError(
            f"{asked}, named by {by}, does not exist.", hint="Name the host application's .env."
        )
    return env_file


def _says_which_database(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> bool:
    """Whether a database was chosen, be it the embedded one by its directory."""
    keys = ("DATABASE_URL", "CREDENTIALS_DIRECTORY", STATE_KEY)
    return bool(flags.get("DATABASE_URL") or any(environment.get(key, "").strip() for key in keys))


def _env_file_of_service() -> tuple[EnvFile | None, str | None]:
    """Return the file of the installed service, and a remark that names it."""
    found = env_file_of_service()
    if found is None:
        return None, None
    unit, path = found
    try:
        env_file = read_env_file(path)
    except ConfigurationError as error:
        kind = ConfigurationError if os.access(path, os.R_OK) else OthersFile
        raise kind(f"{error} It is the file of {unit}.", hint=error.hint) from None
    return env_file, f"There is no .env here: using {path}, the file of {unit}." if env_file else None


def _first(
    key: str, flags: Mapping[str, str | None], environment: Mapping[str, str], env_file: EnvFile | None
) -> tuple[str, Origin] | None:
    """Return the first text that is not empty, and its origin."""
    if text := flags.get(key):
        return text, Origin("flag", _FLAGS.get(key) or "--" + key.lower().replace("_", "-"))
    if text := environment.get(key, "").strip():
        return text, Origin("environment", "environment")
    entry = env_file.entries.get(key) if env_file else None
    if entry and entry.value and env_file:
        return entry.value, Origin("file", f"{env_file.path}, line {entry.line}")
    return _credential(key, environment)


def _credential(key: str, environment: Mapping[str, str]) -> tuple[str, Origin] | None:
    """Read a systemd credential named like the key in lower or upper case."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    for name in (key.lower(), key):
        path = Path(directory) / name
        try:
            text = read_regular_file(path, _LARGEST_CREDENTIAL_BYTES)[0].decode("utf-8-sig").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(
                f"The credential {name} for {key} cannot be read as text.",
                hint="Check LoadCredential= of the service unit.",
            ) from None
        if text:
            return text, Origin("credential", f"credential {name}")
    return None


def _near_misses(environment: Mapping[str, str], env_file: EnvFile | None) -> list[str]:
    """Return warnings of keys that are nearly ours, by an edit or a prefix."""
    places = dict.fromkeys(environment, "the environment")
    if env_file:
        places |= {key: f"{env_file.path}, line {entry.line}," for key, entry in env_file.entries.items()}
    warnings = []
    for key, place in sorted(places.items()):
        if ours := near_miss(key):
            warnings.append(f"{key} in {place} is ignored; {ours} may be meant.")
    return warnings


def _database_warnings(settings: Settings, origin: Origin) -> list[str]:
    """Parse the connection string as the driver does; return its warnings, raise ConfigurationError with the origin."""
    if settings.database_url is None:
        return []
    text = settings.database_url.get_secret_value()
    try:
        checked = read(text)
    except ConfigurationError as error:
        message = str(error).replace("DATABASE_URL", f"DATABASE_URL ({origin})", 1)
        raise ConfigurationError(message, hint=error.hint) from None
    warnings = list(checked.warnings)
    if origin.source == "flag" and checked.parameters.get("password"):
        warnings.append("The password in --database-url is visible in the process list; DATABASE_URL is not.")
    if transport := transport_warning(text):
        warnings.append(transport)
    return warnings
