"""Which fault when, whom it hits and how hard: a pure function of the seed and of the length of a round."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

# Who can be hit, and how often each fault is drawn. A restart of the server and a clock that is set cost the most.
WEIGHTS = {
    "kill run": 22,
    "kill daemon": 3,
    "kill built-in": 2,
    "freeze run": 9,
    "freeze daemon": 3,
    "freeze built-in": 1,
    "cut before commit": 13,
    "cut during commit": 13,
    "cut after commit": 13,
    "end backends": 12,
    "cancel statements": 10,
    "lock wallets": 4,
    "lock instances": 3,
    "lock tables": 1,
    "lose status": 2,
    "stop daemon": 1,
    "clock ahead": 2,
    "clock back": 2,
}
PER_ROUND = {"restart server": 2, "clock far ahead": 1, "clock far back": 1}
KINDS = (*WEIGHTS, *PER_ROUND)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when (seconds of the round), what, whom (a number to choose by), for how long, how hard."""

    at: float
    kind: str
    whom: int
    seconds: float
    count: int
    strength: float


@dataclass(frozen=True, slots=True)
class Round:
    """What is fixed about a round before it begins."""

    seed: int
    seconds: float
    partial_hour: str
    hours_per_second: float
    organizations: int
    instances: int
    batch_size: int
    workers: int
    faults: tuple[Fault, ...]


def plan_round(seed: int, seconds: float, rate: float) -> Round:
    """Draw a round of so many seconds with so many faults a second, from its seed."""
    chance = Random(seed)
    faults = []
    at = 0.3
    while (at := at + chance.expovariate(rate)) < seconds - 0.2:
        faults.append(_draw(chance, at, chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]))
    for kind, times in PER_ROUND.items():
        # Half of them in a short round, and none of what needs time to be repaired at its end.
        count = times if seconds >= 15 else chance.randrange(times + 1)
        faults += [_draw(chance, chance.uniform(1.0, max(seconds - 3.0, 1.5)), kind) for _ in range(count)]
    return Round(
        seed=seed,
        seconds=seconds,
        partial_hour=chance.choice(("prorate", "prorate", "full", "free")),
        hours_per_second=chance.choice((1.2, 1.6, 2.0)),
        organizations=chance.randint(18, 40),
        instances=chance.randint(120, 200),
        batch_size=chance.choice((5, 12, 25, 60)),
        workers=chance.choice((1, 2, 2, 3)),
        faults=tuple(sorted(faults, key=lambda fault: (fault.at, fault.kind))),
    )


def _draw(chance: Random, at: float, kind: str) -> Fault:
    return Fault(
        at=round(at, 4),
        kind=kind,
        whom=chance.randrange(1_000_000),
        seconds=round(chance.choice((0.15, 0.5, 1.2, 2.0)) * chance.uniform(0.5, 1.5), 3),
        count=chance.choice((1, 2, 4, 8)) if kind.startswith("cut") else chance.choice((1, 1, 2, 3)),
        strength=round(chance.random(), 4),
    )
