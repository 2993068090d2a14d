"""Fork server for billers: the product is imported once, so that starting a biller costs milliseconds.

Commands arrive on standard input and replies leave on standard output, one line of JSON each:

    {"spawn": "daemon" | "built-in" | "run", …}    ->  {"spawned": pid}
    {"signal": number, "pid": pid}                 ->  {"signalled": pid, "alive": true | false}
    (a child ended)                                ->  {"ended": pid, "status": exit code or -signal}

All children are started, signalled and reaped here, so no signal reaches a foreign process. The server has one
thread, its children never return into it, and at the end of its input it kills them all.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from tests.faultlab.campaign import compression

UNFORESEEN = 70  # the exit code of a child that raised what the product does not name
CONTRADICTION = 71  # and of one that found the books contradicted, which no fault may bring about
_DIE_WITH_PARENT = 1


def main() -> int:
    """Import the product, then handle commands until the input ends."""
    compression.compress_product()
    _warm_up()
    children: set[int] = set()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A child starts with SIGTERM blocked, so that none arrives before its handler is installed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.set_wakeup_fd(wake_write)
    buffer = b""
    _reply({"ready": os.getpid()})
    while True:
        readable, _, _ = select.select([0, wake_read], [], [])
        if wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(children)
        if 0 in readable:
            read = os.read(0, 65536)
            if not read:
                break
            *lines, buffer = (buffer + read).split(b"\n")
            for line in lines:
                _handle(json.loads(line), children, (wake_read, wake_write))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    return 0


def _warm_up() -> None:
    from containerstacks_billing import logs
    from containerstacks_billing.charging import run as run_billing
    from containerstacks_billing.config import load as configuration
    from containerstacks_billing.daemon import built_in, daemon
    from containerstacks_billing.database import statements as queries

    assert all((run_billing, built_in, configuration, daemon, logs))
    for name in ("fence", "charge", "pay_past_due"):
        queries.query(name)


def _handle(order: dict[str, Any], children: set[int], inherited: tuple[int, int]) -> None:
    if "spawn" in order:
        pid = os.fork()
        if pid == 0:
            _child(order, inherited)
        children.add(pid)
        _reply({"spawned": pid})
    else:
        _reap(children)
        pid = order["pid"]
        alive = pid in children
        if alive:
            # A child that has ended and was not waited for yet keeps its number; the signal does nothing then.
            os.kill(pid, order["signal"])
        _reply({"signalled": pid, "alive": alive})


def _reap(children: set[int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        children.discard(pid)
        _reply({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _reply(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _child(order: dict[str, Any], inherited: tuple[int, int]) -> NoReturn:
    """Run a biller in the forked child; never returns."""
    code = UNFORESEEN
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, place in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, place)
        for descriptor in inherited:
            os.close(descriptor)
        code = _run_child(order)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_child(order: dict[str, Any]) -> int:
    from containerstacks_billing import logs
    from containerstacks_billing.config import load as configuration

    os.chdir(Path(order["log"]).parent)
    for name in [name for name in os.environ if name.startswith(("PG", "BILLING_"))]:
        del os.environ[name]
    os.environ.update(order["settings"])
    found = configuration.load({})
    logs.configure(found.settings.log_level, "logfmt", found.secrets(), stream=sys.stderr)
    read = compression.host_clock(*order["clock"])
    if order["spawn"] == "daemon":
        from containerstacks_billing.daemon import daemon

        clock = compression.fast_clock(order["clock"][2], read)
        return daemon.Daemon(found, lambda: configuration.load({}), clock).run()
    if order["spawn"] == "built-in":
        return _built_in(found.settings, read)
    return _run(found.settings, order, read)


def _built_in(settings: Any, read: Callable[[], datetime]) -> int:
    from containerstacks_billing.daemon.built_in import BuiltInBilling

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    built_in = BuiltInBilling(settings, check_seconds=0.3, clock=compression.host_time_clock(read))
    thread = threading.Thread(target=built_in.run, args=(stopping,))
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # a signal is taken by the main thread, between two of these
    return 0


def _run(settings: Any, order: dict[str, Any], read: Callable[[], datetime]) -> int:
    """Do what the verb `run` does, without its output."""
    from containerstacks_billing.charging.run import RunOrder, run_billing, terms_of
    from containerstacks_billing.config.target import target
    from containerstacks_billing.errors import BillingError, InvariantBroken

    try:
        run_billing(
            RunOrder(
                conninfo=target(settings, embedded_allowed=False).conninfo,
                terms=terms_of(settings),
                trigger="manual",
                holder=f"run-{os.getpid()}",
                workers=settings.billing_workers,
                batch_size=settings.billing_batch_size,
                host_clock=read,
                wait_seconds=order["wait"],
            )
        )
    except BillingError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return CONTRADICTION if isinstance(error, InvariantBroken) else error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
