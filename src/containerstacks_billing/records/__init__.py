"""Lists of organizations, instances, charges, ledger entries, runs and decisions, page by page."""
