"""`python -m containerstacks_billing`: the command, where its script is not on the path."""

from containerstacks_billing.cli import main

main()
