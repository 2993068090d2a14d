"""Row level security: whether it hides rows from this role, and the statement that gives the role its policies.

A row that a policy hides is not billed, and nothing says so. `row_security = off` would turn that into an error, but
also where a policy of ours lets every row through, so the policies themselves are read, once per run and command.
"""

from __future__ import annotations

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.grants import only_reads, policies_for
from containerstacks_billing.database.inspect import hidden_tables, missing_rights
from containerstacks_billing.errors import RightsMissing


def hidden_rows_problem(connection: Connection) -> RightsMissing | None:
    """Return the error of a role from which rows may be hidden, with the cure; None where none is hidden."""
    hidden = hidden_tables(connection)
    if not hidden:
        return None
    role = connection.info.user
    return RightsMissing(
        f"Row security may hide rows of {', '.join(hidden)} from the role {role}: what is hidden would not be billed.",
        f"As the owner of the tables: {policies_for(role, reading=only_reads(missing_rights(connection)))}",
    )
