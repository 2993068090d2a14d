"""The database schema: migrations, adoption of a host database, drift detection and repair."""
