"""The embedded PostgreSQL server for development, tests and trials, and its demo fleet."""
