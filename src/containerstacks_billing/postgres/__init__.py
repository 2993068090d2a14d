"""MEMORY: everything that is kept in PostgreSQL, and how it is reached."""
