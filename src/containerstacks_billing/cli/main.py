r"""The frame of the command line: order of the verbs, global options, how every error ends.

A new verb is a module of this room, imported by `cli/__init__.py` and named in `_VERBS`:

    _EXAMPLES = '''
    \b
    Examples:
      containerstacks-billing runs --limit 100
    '''

    @app.command(epilog=_EXAMPLES)
    @click.option("--limit", type=WholeNumber(1, 10_000), metavar="N", default=20, help="How many.")
    @json_option
    @click.pass_context
    def runs(ctx: click.Context, limit: int, as_json: bool) -> None:
        '''List the last billing runs, newest first.'''
        from containerstacks_billing.config.target import target

        conninfo = target(configured(ctx).settings).conninfo
        ...

Heavy imports stand inside the verb, so that --help appears at once. A verb writes data to standard output, remarks to
standard error, and handles no errors: `Verbs.invoke` turns each into a sentence, a hint and an exit code. Usage errors
are those of click (`click.BadParameter`, exit 2), all others those of `errors.py`; `ctx.exit(code)` ends with another
code. Shared types and options are in `arguments.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from containerstacks_billing.cli.completion import completion_options
from containerstacks_billing.errors import EXIT_FAILED, EXIT_INTERRUPTED, BillingError
from containerstacks_billing.redaction import redact
from containerstacks_billing.version import __version__

if TYPE_CHECKING:
    from containerstacks_billing.config.load import Configuration

# The order of a first day: try it, look at it, install it.
_VERBS = (
    "up", "run", "verify", "reconcile", "status", "runs", "prices", "quarantine", "release", "reverse", "credit",
    "decisions", "runways", "events",
    "admission", "why", "statement", "leaks", "audit", "months",
    "daemon", "serve", "migrate", "doctor", "grants", "config", "service", "token", "db", "drill",
)  # fmt: skip
# Long-running verbs, whose standard error is a log.
_SERVICES = ("daemon", "serve")
_FLAGS = "containerstacks_billing.flags"

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
NAME = "containerstacks-billing"


def _global_options(*, hidden: bool) -> list[click.Option]:
    """Return the options that may stand before or behind the verb; their values go into `ctx.meta`."""
    return [
        click.Option(
            [f"--{name}"], metavar=metavar, help=text, hidden=hidden, expose_value=False, callback=_remember
        )
        for name, metavar, text in (
            ("env-file", "FILE", "The host application's .env. [default: ./.env]"),
            ("database-url", "URL", "The database; visible in the process list."),
            ("log-level", "LEVEL", "debug, info, warning or error. [default: info]"),
        )
    ]


_KEYS = {
    "env_file": "CONTAINERSTACKS_ENV_FILE",
    "database_url": "DATABASE_URL",
    "log_level": "LOG_LEVEL",
}


def _remember(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(_FLAGS, {})[_KEYS[option.name]] = value


class Verb(click.Command):
    """A verb, which takes the global options too: most people write them behind it."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.params += _global_options(hidden=True)


class Verbs(click.Group):
    """A group of verbs that ends every error in words and an exit code."""

    command_class = Verb
    group_class = type

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.params[:0] = _global_options(hidden=self.name != NAME)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List verbs in the order of a first day, those of other groups in the order of their definition."""
        if ctx.parent is not None:
            return list(self.commands)
        return sorted(self.commands, key=lambda verb: _VERBS.index(verb) if verb in _VERBS else len(_VERBS))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group."""
        with _redacted_usage_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; usage errors pass on to click, which writes them and exits with 2."""
        try:
            with _redacted_usage_errors():
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - every error has to end in words
            ctx.exit(_explain(error, ctx))


@contextmanager
def _redacted_usage_errors() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise click.UsageError(redact(error.format_message()), error.ctx) from None


def _explain(error: Exception, ctx: click.Context) -> int:
    """Write the error and its hint, as an event of the log for a service; return the exit code."""
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


def _is_logged(ctx: click.Context) -> bool:
    """Return whether a service's error goes to a journal or a collector; set up logging where it is not yet.

    A refused configuration has set up no logging; its LOG_FORMAT is used all the same.
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


def configured(ctx: click.Context, flags: Mapping[str, str | None] | None = None) -> Configuration:
    """Load the configuration for a verb, set up logging by it, and log its remarks and warnings.

    `flags` holds the verb's own flags by environment key, None where one was not given.
    """
    from containerstacks_billing import logs
    from containerstacks_billing.config import load as configuration

    loaded = configuration.load(all_flags(ctx, flags))
    logs.configure(loaded.settings.log_level, loaded.settings.log_format, loaded.secrets())
    for remark in loaded.remarks:
        logs.logger().info(remark)
    for warning in loaded.warnings:
        logs.logger().warning(warning)
    return loaded


def all_flags(ctx: click.Context, flags: Mapping[str, str | None] | None = None) -> dict[str, str | None]:
    """Return the global flags and the verb's own, by environment key."""
    return {
        **ctx.meta.get(_FLAGS, {}),
        **{key: text for key, text in (flags or {}).items() if text is not None},
    }


@click.group(
    NAME,
    cls=Verbs,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80, "show_default": True},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@completion_options
def app() -> None:
    """Charge every ContainerStacks VPS instance for its hours: exactly once, to the cent."""
    for stream in (sys.stdout, sys.stderr):
        # A label that the terminal cannot show must not end the work.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command; the entry point of the package."""
    app.main(prog_name=NAME)
