"""Top up random wallets, one after another, until standard input closes; print the latencies in ms as JSON."""

from __future__ import annotations

import json
import random
import sys
import threading
import time

import psycopg

PAUSE_SECONDS = 0.005


def main() -> None:
    """Move balances by a delta that comes with its ledger entry, as the host application does."""
    conninfo, seed = sys.argv[1:3]
    choice = random.Random(int(seed))
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    latencies: list[float] = []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        wallets = [row[0] for row in conn.execute("select organization_id from wallets")]
        print("ready", flush=True)
        while not ended.wait(PAUSE_SECONDS):
            organization = choice.choice(wallets)
            begun = time.perf_counter()
            with conn.transaction():
                conn.execute(
                    "update wallets set balance = balance + 1, updated_at = now() where organization_id = %s",
                    [organization],
                )
                conn.execute(
                    "insert into payment_transactions (organization_id, amount, currency, payment_method,"
                    " payment_provider, status, description)"
                    " values (%s, 1, 'USD', 'paypal', 'paypal', 'completed', 'Top-up')",
                    [organization],
                )
            latencies.append((time.perf_counter() - begun) * 1000)
    print(json.dumps(latencies))


if __name__ == "__main__":
    main()
