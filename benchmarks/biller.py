"""One run in a process of its own, so that its memory is the product's alone. Prints one JSON document."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime

from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun, Terms
from containerstacks_billing.charging.run import RunOrder, run_billing
from containerstacks_billing.database.connection import Connection


class _Timed(RunCharger):
    """Charges batches and keeps how long each took, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.durations: list[float] = []

    def charge(self, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        begun = time.perf_counter()
        result = super().charge(connection, run, batch)
        self.durations.append(time.perf_counter() - begun)
        return result


def main() -> None:
    """Bill as ordered on the command line: conninfo, as of, workers, batch size."""
    conninfo, as_of, workers, batch_size = sys.argv[1:5]
    moment = datetime.fromisoformat(as_of)
    order = RunOrder(
        conninfo,
        Terms(),
        trigger="bench",
        holder="bench",
        workers=int(workers),
        batch_size=int(batch_size),
        as_of=moment,
        host_clock=lambda: moment,
    )
    charger = _Timed()
    begun = time.perf_counter()
    result = run_billing(order, charger)
    seconds = time.perf_counter() - begun
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    used = os.times()
    document = {
        "outcome": result.outcome,
        "instances": result.instances_billed,
        "amount": str(result.amount),
        "batches": result.batches,
        "seconds": seconds,
        "longestBatchMs": max(charger.durations, default=0) * 1000,
        "peakMemoryMiB": peak / 1024,
        "ourCpu": used.user + used.system,
        "error": result.error_message,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
