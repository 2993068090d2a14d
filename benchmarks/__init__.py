"""Measurements of the engine on a throw-away server. Nothing here is part of the product."""
