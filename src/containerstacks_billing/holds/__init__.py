"""Held hours and held runs: what waits for a decision, and the release."""
