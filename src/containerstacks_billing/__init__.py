"""Charge every ContainerStacks VPS instance for its hours: exactly once, to the cent, out of prepaid wallets.

`embed` and `BuiltInBilling` are the public interface for Python applications that hold built-in billing themselves.
They are imported on first use, because every verb of the command imports this module and few need a web framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from containerstacks_billing.version import __version__ as __version__

if TYPE_CHECKING:
    from containerstacks_billing.daemon.built_in import BuiltInBilling as BuiltInBilling
    from containerstacks_billing.web.embed import embed as embed


def __getattr__(name: str) -> Any:
    """Import a public name on first use; raises AttributeError for any other."""
    if name in {"BuiltInBilling", "embed"}:
        from containerstacks_billing.web import embed as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
