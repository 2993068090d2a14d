"""Error classes by the action they require, and the exit codes of the command.

An error class says what has to happen now: correct the configuration, wait for the database, start again from
the rows, or stop and look. Findings about data (a quarantined instance, a discrepancy) are values, never
exceptions.

The exit codes follow sysexits.h where it has a word for the case: 75 is a temporary failure that another
attempt may overcome, 78 is a configuration that no attempt will. The service unit restarts after the first
and not after the second.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75
EXIT_CONFIGURATION = 78
EXIT_INTERRUPTED = 130


class BillingError(Exception):
    """Base class of every error with a known cause.

    `str(error)` is one sentence saying what is wrong; `hint` is one sentence saying what to do about it, or
    several lines where commands or statements are to be copied. Neither ever holds a secret.
    """

    exit_code: int = EXIT_FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(BillingError):
    """A setting is missing, malformed or out of range; trying again changes nothing."""

    exit_code = EXIT_CONFIGURATION


class OthersFile(ConfigurationError):
    """The environment file of the installed service is not for this user to read: no fault of the installation."""


class SchemaMismatch(BillingError):
    """The tables are not the ones this version expects, or a migration was changed after it ran."""

    exit_code = EXIT_CONFIGURATION


class RightsMissing(BillingError):
    """The database role may not read or write what billing needs; the hint holds the GRANT statements."""

    exit_code = EXIT_CONFIGURATION


class DatabaseUnavailable(BillingError):
    """The database does not answer, or answers that it cannot work now; try again with a growing pause."""

    exit_code = EXIT_TRY_AGAIN


class LoginRefused(BillingError):
    """The server refused the login; retried, because a rotated password may come with the next configuration."""

    exit_code = EXIT_TRY_AGAIN


class LeaseNotObtained(BillingError):
    """Another biller holds the right to bill; nothing was charged by this process."""

    exit_code = EXIT_TRY_AGAIN


class LeaseLost(BillingError):
    """The right to bill was taken over in the middle of a run; the batch that noticed it charged nothing."""


class OutcomeUnknown(BillingError):
    """The outcome of a COMMIT is unknown; only the rows show whether the work was committed."""


class InvariantBroken(BillingError):
    """The tables contradict what every committed batch guarantees; the batch was rolled back."""


class WorkFailed(BillingError):
    """The work was attempted and did not succeed; nothing partial was left behind."""
