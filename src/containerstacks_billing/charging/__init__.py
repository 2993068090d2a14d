"""The charging engine: runs, batches, the lease, and what one transaction does to charge every due hour once."""
