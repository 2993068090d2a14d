"""`token`: create, list and revoke admin tokens of the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from containerstacks_billing.cli.arguments import Number, json_option
from containerstacks_billing.cli.main import app, configured

_EXAMPLES = """
\b
Examples:
  containerstacks-billing token create prometheus
  containerstacks-billing token create "Ada's laptop" --days 30
  containerstacks-billing token create "on call" --scope decide
"""
_LIST_EXAMPLES = """
\b
Examples:
  containerstacks-billing token list
  containerstacks-billing token list --json | jq -r '.tokens[].name'
"""
_REVOKE_EXAMPLES = """
\b
Examples:
  containerstacks-billing token revoke prometheus
  containerstacks-billing token revoke 3    by its number in the list
"""


@app.group("token", epilog=_EXAMPLES)
def verbs() -> None:
    """Make, list and revoke admin tokens of the application side.

    Made and revoked as the owner of the tables: the role of billing makes none.
    """


@verbs.command(epilog=_EXAMPLES)
@click.argument("name", metavar="NAME", help="What it is for: 1 to 100 characters.")
@click.option("--days", type=Number(0.001, 3660), metavar="DAYS", default=365, help="Days until it expires.")
@click.option("--never-expires", is_flag=True, help="It does not expire.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["read", "finance", "decide"]),
    multiple=True,
    default=("finance",),
    show_default=True,
    help="What it may do beside reading; repeat it for more.",
)
@json_option
@click.pass_context
def create(
    ctx: click.Context, name: str, days: float, never_expires: bool, scopes: tuple[str, ...], as_json: bool
) -> None:
    """Make a token and show it, once; only its hash is kept.

    read shows runs and the fleet, finance also customers and their money; decide may release what is held.
    """
    import getpass
    import secrets

    from containerstacks_billing.cli import render
    from containerstacks_billing.errors import WorkFailed
    from containerstacks_billing.tokens import store as tokens
    from containerstacks_billing.tokens.model import PREFIX, RANDOM_BYTES, READ, hash_of

    name = name.strip()
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise click.BadParameter("The name has 1 to 100 printable characters.", param_hint="NAME")
    text = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    with _connection(ctx) as connection:
        valid_days = None if never_expires else days
        granted = sorted({READ, *scopes})
        made = tokens.create(connection, name, hash_of(text), _user(getpass), valid_days, granted)
    if made is None:
        raise WorkFailed(
            f"There is a token called {name} already.", hint="Choose another name, or revoke that one first."
        )
    if as_json:
        from containerstacks_billing.tokens.schemas import NewToken, TokenDocument

        render.emit_json(NewToken(token=text, **TokenDocument.model_validate(made).model_dump()))
        return
    print(text)
    until = f"until {made.expires_at:%Y-%m-%d %H:%M %Z}" if made.expires_at else "until it is revoked"
    render.stderr().print(
        render.printable(f"{made.name}: valid {until}. It is not shown again."), soft_wrap=True
    )


@verbs.command("list", epilog=_LIST_EXAMPLES)
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Show every token, and whether it still opens anything."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.tokens import store as tokens

    with _connection(ctx) as connection:
        found = tokens.listed(connection)
    if as_json:
        from containerstacks_billing.tokens.schemas import TokenDocument

        render.emit_json({"tokens": [TokenDocument.model_validate(one) for one in found]})
    elif not found:
        render.stdout().print("No tokens. Make one with `containerstacks-billing token create NAME`.")
    else:
        headings = ("No.", "Name", "State", "Scopes", "Expires", "Last used")
        rows = [
            (one.id, one.name, one.state, " ".join(one.scopes), _day(one.expires_at), _day(one.last_used_at))
            for one in found
        ]
        render.stdout().print(render.table(headings, rows, right=("No.",)))


@verbs.command(epilog=_REVOKE_EXAMPLES)
@click.argument("which", metavar="NAME|NUMBER", help="The token to end.")
@json_option
@click.pass_context
def revoke(ctx: click.Context, which: str, as_json: bool) -> None:
    """End a token now."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.errors import WorkFailed
    from containerstacks_billing.tokens import store as tokens

    with _connection(ctx) as connection:
        ended = tokens.revoke(connection, which)
    if not ended:
        raise WorkFailed(
            f"There is no usable token called {which}.", hint="See `containerstacks-billing token list`."
        )
    if as_json:
        from containerstacks_billing.tokens.schemas import TokenDocument

        render.emit_json({"revoked": [TokenDocument.model_validate(one) for one in ended]})
        return
    for one in ended:
        render.stdout().print(render.printable(f"Revoked {one.name}."))


@contextmanager
def _connection(ctx: click.Context) -> Iterator[Any]:
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed

    conninfo = target(configured(ctx).settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        yield connection


def _user(getpass: Any) -> str:
    try:
        return str(getpass.getuser())
    except (KeyError, OSError):
        return "unknown"


def _day(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "-"
