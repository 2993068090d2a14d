"""Settings: ranges, texts, and keys that were nearly ours."""

from decimal import Decimal

import pytest

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.settings import (
    KEYS,
    Settings,
    accepted,
    default_text,
    describe,
    near_miss,
    settings_from,
)

SECRET = "canary-5d1c6a"


def test_every_default_is_accepted_when_it_is_written_out() -> None:
    """What `config show` prints as a default can be pasted into a file."""
    texts = {key: text for key in KEYS if (text := default_text(key)) is not None}
    assert settings_from(texts) == Settings()


def test_every_key_says_what_it_is_for_and_what_it_accepts() -> None:
    """No key is left to guesswork."""
    assert all(describe(key) and accepted(key) for key in KEYS)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("BILLING_INTERVAL_MINUTES", "1", 1),
        ("BILLING_INTERVAL_MINUTES", "1440", 1440),
        ("LOG_LEVEL", "WARN", "warning"),
        ("LOG_LEVEL", "verbose", "debug"),
        ("BILLABLE_STATUSES", "running, stopped,running", ("running", "stopped")),
        ("BILLABLE_STATUSES", "*", ("*",)),
        ("TRANSIENT_STATUSES", "booting, rebooting", ("booting", "rebooting")),
        ("TRANSIENT_STATUSES", "None", ()),
        ("CURRENCY", "eur", "EUR"),
        ("BRAKE_FACTOR", "2.5", Decimal("2.5")),
        ("PARTIAL_HOUR", "FREE", "free"),
    ],
)
def test_a_text_becomes_a_value(key: str, text: str, value: object) -> None:
    """Texts are read as an operator means them."""
    assert getattr(settings_from({key: text}), key.lower()) == value


@pytest.mark.parametrize(
    ("key", "text", "range_"),
    [
        ("BILLING_INTERVAL_MINUTES", "0", "a whole number from 1 to 1440 (minutes)"),
        ("BILLING_INTERVAL_MINUTES", "1441", "a whole number from 1 to 1440 (minutes)"),
        ("BILLING_INTERVAL_MINUTES", "99999999999999999999", "a whole number from 1 to 1440 (minutes)"),
        ("BILLING_INTERVAL_MINUTES", "1_0", "a whole number from 1 to 1440 (minutes)"),
        ("BILLING_INTERVAL_MINUTES", "60.0", "a whole number from 1 to 1440 (minutes)"),
        ("HEARTBEAT_SECONDS", "601", "a whole number from 1 to 600 (seconds)"),
        ("BRAKE_FACTOR", "NaN", "a number from 1 to 1000"),
        ("BRAKE_FACTOR", "1e2", "a number from 1 to 1000"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("CURRENCY", "US", "a currency code of three letters"),
        ("BILLABLE_STATUSES", "running,*", "a comma-separated list of statuses"),
        ("TRANSIENT_STATUSES", "*", "a comma-separated list of statuses"),
        ("ADMIN_TOKEN", SECRET, "at least 24 characters"),
        ("PORT", SECRET, "a whole number from 0 to 65535"),
        ("DATABASE_URL", f"mysql://u:{SECRET}@h/d", "postgresql://user:password@host:port/database"),
        ("WEBHOOK_URL", SECRET, "an http:// or https:// address"),
        ("HEARTBEAT_URL", SECRET, "an http:// or https:// address"),
        ("WEBHOOK_URL", f"https://u:{SECRET}@h:badport/", "an http:// or https:// address"),
        ("WEBHOOK_URL", f"https://u:{SECRET}@h:65536/", "an http:// or https:// address"),
        ("WEBHOOK_URL", f"https://u:{SECRET}@:443/", "an http:// or https:// address"),
        ("WEBHOOK_URL", f"https://u:{SECRET}@[::1/", "an http:// or https:// address"),
    ],
)
def test_a_refusal_names_key_and_range_and_never_the_value(key: str, text: str, range_: str) -> None:
    """The value may be a secret in the wrong line."""
    with pytest.raises(ConfigurationError) as refused:
        settings_from({key: text}, where=lambda _: " (.env, line 3)")
    said = f"{refused.value} {refused.value.hint}"
    assert f"{key} (.env, line 3) must be {range_}" in said
    assert SECRET not in said
    assert refused.value.exit_code == 78


def test_all_refused_keys_are_named_at_once() -> None:
    """An operator corrects a file once, not once per mistake."""
    with pytest.raises(ConfigurationError, match=r"BILLING_INTERVAL_MINUTES must .*; PORT must "):
        settings_from({"PORT": "x", "BILLING_INTERVAL_MINUTES": "x"})


def test_heartbeats_rarer_than_the_failover_are_refused() -> None:
    """A daemon that beats every ten minutes cannot be found silent after one."""
    with pytest.raises(ConfigurationError, match="HEARTBEAT_SECONDS must be at most half"):
        settings_from({"HEARTBEAT_SECONDS": "600", "FAILOVER_AFTER_MINUTES": "1"})


def test_secrets_hide_in_the_representation() -> None:
    """A settings object in a log or a traceback gives nothing away."""
    settings = settings_from({"DATABASE_URL": f"postgresql://u:{SECRET}@h/d", "JWT_SECRET": SECRET})
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("BILLING_INTERVAL_MINUTE", "BILLING_INTERVAL_MINUTES"),
        ("BILLING_INTERVAL", "BILLING_INTERVAL_MINUTES"),
        ("billing_interval_minutes", "BILLING_INTERVAL_MINUTES"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("BILLING_INTERVAL_MINUTES", None),
        ("STRIPE_WEBHOOK_SECRET", None),
        ("TEST_DATABASE_URL", None),
        ("SMTP_PORT", None),
        ("SUPPORT", None),
        ("NODE_ENV", None),
    ],
)
def test_a_key_that_is_nearly_ours_is_recognised(key: str, ours: str | None) -> None:
    """A misspelt key is warned of; a key of the host application is left in peace."""
    assert near_miss(key) == ours
