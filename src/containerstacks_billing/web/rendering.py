"""Templates of the pages, with the filters that write instants, durations and money."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from containerstacks_billing.money import plain
from containerstacks_billing.web import formatting

# The origin of a form is only named where the referrer may be named to this site.
PAGE_HEADERS = {"Referrer-Policy": "same-origin"}


# Marks that turn the direction of what follows: a name that bears one would turn the words around it.
_OVERRIDES = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C])


def _without_overrides(value: object) -> object:
    """Return a value of a template as it is written; a text without marks of direction."""
    return value.translate(_OVERRIDES) if isinstance(value, str) else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("containerstacks_billing.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=_without_overrides,
    )
    environment.filters.update(
        money=formatting.money, whole=formatting.whole, duration=formatting.duration, exact=plain
    )
    environment.globals.update(
        instant=formatting.instant, age=formatting.age, left=formatting.left, countdown=formatting.countdown
    )
    return environment


def template(name: str) -> Template:
    """Return a template of the pages."""
    return _environment().get_template(name)
