"""Settings: keys, ranges, defaults, and parsing of their text form.

The model is the single place where a range is written down; the sentence an operator reads when a value is
refused is made from the same range that refuses it. No value of a setting ever enters a message:
`ADMIN_TOKEN` may have been pasted into the line of `PORT`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from difflib import SequenceMatcher
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from containerstacks_billing.errors import ConfigurationError

LogLevel = Literal["debug", "info", "warning", "error"]

# The file is the host application's, whose logger has more levels than ours; they are read, not refused.
_HOST_LOG_LEVELS = {"warn": "warning", "fatal": "error", "critical": "error"} | dict.fromkeys(
    ("trace", "verbose", "http", "silly"), "debug"
)


def _whole_number(value: object) -> object:
    """Reject forms that int() accepts and an operator did not mean: `1_000`, `60.0`, `٣`."""
    if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,9}", value.strip()):
        raise ValueError
    return value


def _plain_decimal(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value.strip()):
        raise ValueError
    return value


def _word(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _log_level(value: object) -> object:
    word = _word(value)
    return _HOST_LOG_LEVELS.get(word, word) if isinstance(word, str) else word


def _currency(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _statuses(value: object) -> object:
    """Split a comma-separated list; `*` stands alone."""
    if not isinstance(value, str):
        return value
    statuses = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if (
        not statuses
        or any(len(status) > 50 for status in statuses)
        or ("*" in statuses and len(statuses) > 1)
    ):
        raise ValueError
    return statuses


def _transient_statuses(value: object) -> object:
    """Split a comma-separated list; `none` stands for an empty one."""
    statuses = () if _word(value) == "none" else _statuses(value)
    if statuses == ("*",):
        raise ValueError
    return statuses


def _database_url(value: object) -> object:
    """Refuse what is neither a PostgreSQL URL nor key=value pairs; the driver judges the rest."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and not re.match(r"postgres(ql)?://|[a-z_]+\s*=", text):
        raise ValueError
    return text


def _web_url(value: object) -> object:
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str):
        # urlsplit refuses a port that is no number, or none that exists.
        if not re.fullmatch(r"https?://[^\s/?#]+\S*", text) or urlsplit(text).port == 0:
            raise ValueError
        if not urlsplit(text).hostname:
            raise ValueError
    return text


def _webhook_secret(value: object) -> object:
    """Reject a secret that is too short to sign with; two are accepted while rotating."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text:
        parts = re.split(r"[,\s]+", text)
        if len(parts) > 2 or not all(re.fullmatch(_SIGNING_KEY_FORM, part) for part in parts):
            raise ValueError
    return text


def _host_name(value: object) -> object:
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and not re.fullmatch(r"[0-9A-Za-z.:_%-]{1,255}", text):
        raise ValueError
    return text


# `whsec_` and base64 of 24 to 64 bytes, or a plain text.
_SIGNING_KEY_FORM = (
    r"whsec_(?:[A-Za-z0-9+/]{4}){8,21}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?|(?!whsec_).{24,}"
)

# What a provider says while it is at work. `provisioning` is none of them: a new instance has no status before.
_AT_WORK = "booting,rebooting,shutting_down,migrating,resizing,rebuilding,restoring,cloning"
TRANSIENT_STATUSES = tuple(_AT_WORK.split(","))

Whole = Annotated[int, BeforeValidator(_whole_number)]


class Settings(BaseModel):
    """Validated, immutable settings.

    Field names are the environment keys in lower case. `title` is the unit or the accepted form,
    `description` what the setting does; both are shown by the command.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[SecretStr | None, BeforeValidator(_database_url)] = Field(
        None,
        title="postgresql://user:password@host:port/database, or key=value pairs as libpq reads them",
        description="The PostgreSQL database of the host application",
    )
    billing_interval_minutes: Whole = Field(
        60, ge=1, le=1440, title="minutes", description="How often the daemon bills"
    )
    log_level: Annotated[LogLevel, BeforeValidator(_log_level)] = Field(
        "info", description="The least severe event that is logged"
    )
    log_format: Annotated[Literal["auto", "terminal", "logfmt", "json"], BeforeValidator(_word)] = Field(
        "auto", description="How a log line is written; auto is readable on a terminal and logfmt elsewhere"
    )
    failover_after_minutes: Whole = Field(
        90, ge=1, le=1440, title="minutes", description="Silence after which built-in billing takes over"
    )
    heartbeat_seconds: Whole = Field(
        60, ge=1, le=600, title="seconds", description="How often the daemon proves that it is alive"
    )
    billing_batch_size: Whole = Field(
        2500, ge=1, le=100_000, title="instances", description="Instances charged in one transaction"
    )
    billing_workers: Whole = Field(
        2, ge=1, le=32, title="connections", description="Connections that charge side by side"
    )
    billable_statuses: Annotated[tuple[str, ...], BeforeValidator(_statuses)] = Field(
        ("running",),
        title="a comma-separated list of statuses of at most 50 characters each, or * alone for every status",
        description="Which instances are charged",
    )
    transient_statuses: Annotated[tuple[str, ...], BeforeValidator(_transient_statuses)] = Field(
        TRANSIENT_STATUSES,
        title="a comma-separated list of statuses of at most 50 characters each, or none",
        description="Statuses that continue the one before: what was billable stays so; none that is billable by name",
    )
    hours_per_month: Whole = Field(
        730, ge=672, le=744, title="hours", description="Divides a monthly price into an hourly rate"
    )
    partial_hour: Annotated[Literal["prorate", "full", "free"], BeforeValidator(_word)] = Field(
        "prorate", description="What the last, unfinished hour of an instance costs"
    )
    creation_fee: Annotated[Literal["extra", "covers-first-hour"], BeforeValidator(_word)] = Field(
        "extra", description="Whether the host's fee at creation pays for the first hour of an instance"
    )
    currency: Annotated[str, BeforeValidator(_currency)] = Field(
        "USD",
        pattern=r"^[A-Z]{3}$",
        title="a currency code of three letters",
        description="The currency of the wallets that are charged",
    )
    max_catch_up_hours: Whole = Field(
        72, ge=1, le=8784, title="hours", description="Unrated hours beyond which an instance is held"
    )
    brake_factor: Annotated[Decimal, BeforeValidator(_plain_decimal)] = Field(
        Decimal(3),
        ge=1,
        le=1000,
        description="How many times the fleet, prices or average of the last run a run may reach before it is held",
    )
    shrink_brake: Annotated[Literal["on", "off"], BeforeValidator(_word)] = Field(
        "off",
        description="Whether a fleet that shrank below one BRAKE_FACTOR-th holds the run; a warning comes anyway",
    )
    built_in_billing: Annotated[Literal["auto", "on", "off"], BeforeValidator(_word)] = Field(
        "auto", description="Whether the application side bills when the daemon is silent"
    )
    host: Annotated[str, BeforeValidator(_host_name)] = Field(
        "127.0.0.1",
        title="an address or host name",
        description="The address the application side listens on",
    )
    port: Whole = Field(3001, ge=0, le=65535, description="The port the application side listens on")
    admin_token: SecretStr | None = Field(
        None, min_length=24, title="at least 24 characters", description="Opens the administrative pages"
    )
    jwt_secret: SecretStr | None = Field(
        None,
        title="the secret the host application signs with",
        description="Checks the host application's tokens",
    )
    webhook_url: Annotated[SecretStr | None, BeforeValidator(_web_url)] = Field(
        None, title="an http:// or https:// address", description="Where alerts are sent"
    )
    webhook_secret: Annotated[SecretStr | None, BeforeValidator(_webhook_secret)] = Field(
        None,
        title="whsec_ and the base64 of 24 to 64 bytes, or at least 24 characters; two with a comma between to rotate",
        description="Signs the events, as Standard Webhooks has it",
    )
    heartbeat_url: Annotated[SecretStr | None, BeforeValidator(_web_url)] = Field(
        None, title="an http:// or https:// address", description="Gets a GET after each completed run"
    )
    heartbeat_steps: Annotated[Literal["off", "on"], BeforeValidator(_word)] = Field(
        "off", description="Whether HEARTBEAT_URL/start and /fail are sent too"
    )
    retention_days: Whole = Field(
        90, ge=1, le=3650, title="days", description="Age at which status, runs and events are removed"
    )


KEYS: tuple[str, ...] = tuple(name.upper() for name in Settings.model_fields)

_NUMBERS: dict[type, str] = {int: "a whole number", Decimal: "a number"}


def _field(key: str) -> FieldInfo:
    return Settings.model_fields[key.lower()]


def _types(annotation: Any) -> tuple[Any, ...]:
    """List the alternatives of an annotation, without None."""
    if get_origin(annotation) is Literal:
        return (annotation,)
    return tuple(kind for kind in get_args(annotation) if kind is not NoneType) or (annotation,)


def is_secret(key: str) -> bool:
    """Return whether the value of a key is a secret."""
    return SecretStr in _types(_field(key).annotation)


def describe(key: str) -> str:
    """Return the description of a key."""
    return _field(key).description or ""


def accepted(key: str) -> str:
    """Return the accepted values of a key as a phrase, derived from the bounds of the model."""
    field = _field(key)
    kind = _types(field.annotation)[0]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind in _NUMBERS:
        low = next(bound.ge for bound in field.metadata if hasattr(bound, "ge"))
        high = next(bound.le for bound in field.metadata if hasattr(bound, "le"))
        unit = f" ({field.title})" if field.title else ""
        return f"{_NUMBERS[kind]} from {low} to {high}{unit}"
    return field.title or "any text"


def default_text(key: str) -> str | None:
    """Return the default of a key as it would be written in a file; None where there is none."""
    default = _field(key).default
    if default is None:
        return None
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _hint(keys: list[str]) -> str:
    return (
        f"Correct {' and '.join(keys)}, or leave {'it' if len(keys) == 1 else 'them'} out to use the default."
    )


def settings_from(
    values: Mapping[str, str],
    where: Callable[[str], str] = lambda _key: "",
    hint: Callable[[list[str]], str] = _hint,
) -> Settings:
    """Build settings from texts by key; keys without a text get their default.

    `where(key)` says where a text came from (` in .env, line 3`) and becomes part of the message;
    `hint(keys)` says what to do about those that are refused.
    Raises ConfigurationError naming every key that is refused and what it accepts, never a value.
    """
    try:
        settings = Settings.model_validate({key.lower(): text for key, text in values.items()})
    except ValidationError as refusal:
        keys = list(
            dict.fromkeys(str(problem["loc"][0]).upper() for problem in refusal.errors(include_input=False))
        )
        raise ConfigurationError(
            "; ".join(f"{key}{where(key)} must be {accepted(key)}" for key in keys) + ".",
            hint=hint(keys),
        ) from None
    if settings.heartbeat_seconds * 2 > settings.failover_after_minutes * 60:
        raise ConfigurationError(
            "HEARTBEAT_SECONDS must be at most half of FAILOVER_AFTER_MINUTES.",
            hint="Lower HEARTBEAT_SECONDS or raise FAILOVER_AFTER_MINUTES, or every beat comes too late.",
        )
    return settings


# Keys this short resemble too many others by chance.
_SHORTEST_COMPARED = 6
_ALIKE = 0.86


def near_miss(key: str) -> str | None:
    """Return the setting that an unknown key probably misspells; None for a key of another program.

    `BILLING_INTERVAL_MINUTE`, `billing_interval_minutes` and `BILLING_INTERVAL` are near misses;
    `STRIPE_SIGNING_KEY_FORM` and `SMTP_PORT` are not.
    """
    if key in KEYS:
        return None
    upper = key.upper().replace("-", "_")
    if upper in KEYS:
        return upper
    if len(upper) < _SHORTEST_COMPARED:
        return None
    for ours in KEYS:
        if "_" in upper and ours.startswith(upper + "_"):
            return ours
    compared = (
        (SequenceMatcher(None, upper, ours).ratio(), ours) for ours in KEYS if len(ours) >= _SHORTEST_COMPARED
    )
    likeness, ours = max(compared)
    return ours if likeness >= _ALIKE else None
