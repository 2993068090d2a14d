"""Fault injection on a throw-away database, judged by an independent oracle."""
