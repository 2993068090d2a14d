"""`config show`: every setting, its value and where the value came from."""

from __future__ import annotations

from typing import Annotated

import typer

from containerstacks_billing.cli.main import all_flags, app

_EXAMPLES = """
\b
Examples:
  containerstacks-billing config show
  containerstacks-billing --env-file /root/containerstacks/.env config show
  containerstacks-billing config show --json | jq '.settings[].key'
"""

verbs = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=_EXAMPLES,
    help="Show the settings and where they come from.",
)
app.add_typer(verbs, name="config")


@verbs.command("show", epilog=_EXAMPLES)
def show(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Show every setting with its value and origin.

    Secrets are masked. A flag wins over the environment, that over .env, that over a credential file, that
    over the default.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config import load as configuration
    from containerstacks_billing.settings import KEYS, accepted, describe, is_secret

    loaded = configuration.load(all_flags(ctx))
    if json:
        settings = [
            {
                "key": key,
                "value": loaded.shown(key),
                "origin": loaded.origins[key].source,
                "place": loaded.origins[key].place,
                "secret": is_secret(key),
                "accepted": accepted(key),
                "description": describe(key),
            }
            for key in KEYS
        ]
        env_file = str(loaded.env_file.path) if loaded.env_file else None
        render.emit_json({"settings": settings, "envFile": env_file, "warnings": loaded.warnings})
        return
    rows = [(key, loaded.shown(key), loaded.origins[key]) for key in KEYS]
    render.stdout().print(render.table(("Setting", "Value", "Origin"), rows))
    for warning in loaded.warnings:
        render.stderr().print(f"warning: {warning}")
