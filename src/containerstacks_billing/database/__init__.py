"""Access to PostgreSQL: connections, pools, error translation, grants and named statements; no billing rules."""
