"""`grants`: GRANT statements for a role of least privilege."""

from __future__ import annotations

import click

from containerstacks_billing.cli.main import app, configured

_EXAMPLES = """
\b
Examples:
  containerstacks-billing grants | psql -d containerstacks
  containerstacks-billing grants --read-only --role monitoring
"""


@app.command(epilog=_EXAMPLES)
@click.option("--role", metavar="NAME", help="The role. [default: billing, or billing_reader]")
@click.option("--read-only", is_flag=True, help="For status, runs, verify and doctor; it can change nothing.")
@click.pass_context
def grants(ctx: click.Context, role: str | None, read_only: bool) -> None:
    """Write the GRANT statements for a role of least privilege.

    Changes nothing: run the statements as the owner of the tables. The role can neither change the
    schema nor delete a charge or a ledger entry. In a migrated database billing_admit(NAME) does the
    same from psql, and makes the role.
    """
    from containerstacks_billing.database.conninfo import read
    from containerstacks_billing.database.grants import billing_grants, is_a_role, quoted, reading_grants
    from containerstacks_billing.errors import ConfigurationError

    settings = configured(ctx).settings
    database = "containerstacks"
    if settings.database_url is not None:
        database = read(settings.database_url.get_secret_value()).parameters.get("dbname") or database
    name = role or ("billing_reader" if read_only else "billing")
    if not is_a_role(name):
        raise ConfigurationError(
            f"{name!r} is no name of a role; public would be all roles.", hint="Name a role with --role."
        )
    print(f"-- As a superuser, once: CREATE ROLE {quoted(name)} LOGIN;  and then in psql: \\password {name}")
    print("-- As the owner of the tables, again after every upgrade:")
    for statement in (reading_grants if read_only else billing_grants)(database, name):
        print(statement)
