"""Reconciliation: discrepancies of the books with their likely cause, and their settlement by a decision."""
