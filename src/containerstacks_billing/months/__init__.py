"""Months of charges: what stands in each, and whether anything of it still waits."""
