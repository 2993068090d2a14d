"""`config show`: every setting with its value and origin."""

from __future__ import annotations

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import all_flags, app

_EXAMPLES = """
\b
Examples:
  containerstacks-billing config show
  containerstacks-billing --env-file /root/containerstacks/.env config show
  containerstacks-billing config show --json | jq '.settings[].key'
"""


@app.group("config", epilog=_EXAMPLES)
def verbs() -> None:
    """Show the settings and where they come from."""


@verbs.command("show", epilog=_EXAMPLES)
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Show every setting with its value and origin.

    Secrets are masked. A flag wins over the environment, that over .env, that over a credential file, that
    over the default.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config import load as configuration
    from containerstacks_billing.settings import KEYS, accepted, describe, is_secret

    loaded = configuration.load(all_flags(ctx))
    if as_json:
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
        render.emit_json(
            {
                "settings": settings,
                "envFile": env_file,
                "warnings": loaded.warnings,
                "remarks": loaded.remarks,
            }
        )
        return
    rows = [(key, loaded.shown(key), loaded.origins[key]) for key in KEYS]
    render.stdout().print(render.table(("Setting", "Value", "Origin"), rows))
    for remark in loaded.remarks:
        render.stderr().print(remark, soft_wrap=True)
    for warning in loaded.warnings:
        render.stderr().print(f"warning: {warning}")
