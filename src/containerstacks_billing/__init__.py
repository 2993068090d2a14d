"""Charge every ContainerStacks VPS instance for its hours: exactly once, to the cent, out of prepaid wallets."""

__version__ = "0.1.0"
