"""The frame of the command: global options, the order of verbs, and how an error ends.

A verb does its work and lets errors pass; this is the one place where they end. What is written is redacted
even here, after everything before it already took care, because a library may say what we never would.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from containerstacks_billing.errors import EXIT_FAILED, EXIT_INTERRUPTED, BillingError
from containerstacks_billing.redaction import redact
from containerstacks_billing.version import __version__

if TYPE_CHECKING:
    from containerstacks_billing.config.load import Configuration

# The order of a first day: try it, look at it, install it.
_VERBS = (
    "up", "run", "verify", "status", "runs", "prices", "quarantine", "release", "runways", "events",
    "daemon", "serve", "migrate", "doctor", "grants", "config", "service", "token", "db", "drill",
)  # fmt: skip
# What runs for long and is read in a log.
_SERVICES = ("daemon", "serve")
_GLOBAL_OPTIONS = ("--env-file", "--database-url", "--log-level")
# Typer does not export the class of all its usage errors.
_USAGE_ERRORS: tuple[type[Any], ...] = typer.BadParameter.__bases__

EXAMPLES = """
\b
Examples:
  containerstacks-billing up --once        try it on a demo fleet
  containerstacks-billing doctor           check this machine and its database
  containerstacks-billing run --dry-run    who would be charged what
  containerstacks-billing verify           prove that the books are right

\b
Settings come from flags, the environment, .env, credential files, in this
order; `containerstacks-billing config show` says which and from where.

\b
Exit codes:
  0 done   1 failed or found something   2 usage   75 database, lease or port
  not available, try again   78 configuration wrong   130, 143 interrupted
"""


@dataclass
class GlobalOptions:
    """The flags given for every verb, by environment key."""

    flags: dict[str, str | None] = field(default_factory=dict)


class Verb(TyperCommand):
    """A verb whose help writes arguments as man pages do: PLAN, [PLAN], [-- ARGUMENT]..."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Take away the brackets that stand for nothing."""
        return [re.sub(r"^\{(.+)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def get_help(self, ctx: Any) -> str:
        """Leave out the types of Python behind the names of arguments."""
        return re.sub(r"(?m)^(  [A-Z|.-]+(?: [A-Z]+)?) <[a-z\[\]]+>", r"\1", super().get_help(ctx))


class Verbs(TyperGroup):
    """A group of verbs that ends every error in words and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List verbs in the order of a first day, unknown ones last."""
        return sorted(
            super().list_commands(ctx), key=lambda verb: _VERBS.index(verb) if verb in _VERBS else 99
        )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept global options behind the verb too, where most people write them."""
        if ctx.parent is None:
            args = _hoisted(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; usage errors pass to the frame below, redacted."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except _USAGE_ERRORS as error:
            error.message = redact(_in_plain_words(error.message))
            raise
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - every error has to end in words
            raise typer.Exit(_explain(error, ctx)) from None


def _in_plain_words(message: str) -> str:
    """Say what a value has to be, without the parser's own account of how it failed."""
    message = re.sub(r"Input should be a valid integer, .*", "it has to be a whole number, like 5", message)
    message = re.sub(r"Input should be a valid number, .*", "it has to be a number, like 1.5", message)
    return message.replace("Input should be ", "it has to be ")


def _hoisted(args: list[str]) -> list[str]:
    """Move global options to the front; what follows -- belongs to somebody else."""
    front: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(args):
        argument = args[position]
        if argument == "--":
            rest += args[position:]
            break
        name, has_value, _ = argument.partition("=")
        if name in _GLOBAL_OPTIONS:
            take = 1 if has_value else 2
            front += args[position : position + take]
            position += take
        else:
            rest.append(argument)
            position += 1
    return front + rest


def _explain(error: Exception, ctx: typer.Context) -> int:
    """Say what went wrong and what to do; return the exit code."""
    import psycopg

    from containerstacks_billing.database.errors import translate

    if isinstance(error, psycopg.Error):
        error = translate(error)
    if isinstance(error, BillingError):
        message, hint, code, unforeseen = str(error), error.hint, error.exit_code, None
    else:
        message = f"Something unforeseen happened: {type(error).__name__}: {error}"
        hint = "This is a defect; --log-level debug shows where. Nothing half done was left in the database."
        code, unforeseen = EXIT_FAILED, error
    if ctx.invoked_subcommand in _SERVICES and _is_logged(ctx):
        from containerstacks_billing import logs

        logs.logger().error(redact(message), hint=hint and redact(hint), exit=code, exc_info=unforeseen)
        return code
    if unforeseen:
        _show_traceback_when_debugging(error)
    print(f"error: {redact(message)}", file=sys.stderr)
    for number, line in enumerate(redact(hint or "").splitlines()):
        print(f"{'hint:' if number == 0 else '     '} {line}", file=sys.stderr)
    return code


def _is_logged(ctx: typer.Context) -> bool:
    """Tell whether a service's error is an event for a journal or a collector, and see that it can be logged.

    A configuration that is refused has set up no logging; its LOG_FORMAT counts all the same.
    """
    from containerstacks_billing import logs
    from containerstacks_billing.config import load as configuration

    if not logs.is_configured():
        logs.configure(form=configuration.log_form(all_flags(ctx)))
    return not logs.is_for_people()


def _show_traceback_when_debugging(error: Exception) -> None:
    import logging
    import traceback

    if logging.getLogger().isEnabledFor(logging.DEBUG):
        print(redact("".join(traceback.format_exception(error))), file=sys.stderr)


def configured(ctx: typer.Context, flags: Mapping[str, str | None] | None = None) -> Configuration:
    """Load the configuration for a verb, set up logging by it, and log its warnings once.

    `flags` holds the verb's own flags by environment key, None where one was not given.
    """
    from containerstacks_billing import logs
    from containerstacks_billing.config import load as configuration

    loaded = configuration.load(all_flags(ctx, flags))
    logs.configure(loaded.settings.log_level, loaded.settings.log_format, loaded.secrets())
    for warning in loaded.warnings:
        logs.logger().warning(warning)
    return loaded


def all_flags(ctx: typer.Context, flags: Mapping[str, str | None] | None = None) -> dict[str, str | None]:
    """Return the global flags and the verb's own, by environment key."""
    given = ctx.find_object(GlobalOptions) or GlobalOptions()
    return {**given.flags, **{key: text for key, text in (flags or {}).items() if text is not None}}


app = typer.Typer(
    cls=Verbs,
    name="containerstacks-billing",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog=EXAMPLES,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"containerstacks-billing {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    env_file: Annotated[
        str | None,
        typer.Option("--env-file", metavar="FILE", help="The host application's .env. [default: ./.env]"),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option("--database-url", metavar="URL", help="The database; visible in the process list."),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error. [default: info]"),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Charge every ContainerStacks VPS instance for its hours: exactly once, to the cent."""
    for stream in (sys.stdout, sys.stderr):
        # A label that the terminal cannot show must not end the work.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    ctx.obj = GlobalOptions(
        {"CONTAINERSTACKS_ENV_FILE": env_file, "DATABASE_URL": database_url, "LOG_LEVEL": log_level}
    )


def main() -> None:
    """Run the command; the entry point of the package."""
    app(prog_name="containerstacks-billing")
