"""Commands in processes that are forked from one which has imported the product already.

    process = fork_server().start(["status"], directory, {"DATABASE_URL": conninfo}, (stdin, stdout, stderr))
    assert 0 == process.wait(60)

A command of its own interpreter spends half a second of processor time on imports, and the tests run hundreds. A forked
one is a process as real: its own id, signals, environment, working directory, files and exit code. What it does not show
is a module that fails to be imported late: the server has imported all. Where a test is about the start of the
interpreter it starts one.

A request is one packet of JSON with four file descriptors: standard input, output and error, and a pipe on which the
server writes the process id and, when the process has ended, its status. The server has one thread.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from setproctitle import setproctitle

import containerstacks_billing
from containerstacks_billing import cli

ROOT = Path(__file__).resolve().parent.parent
_LARGEST_REQUEST = 1 << 17


class Forked:
    """A process of the fork server, with the interface of `subprocess.Popen` as far as tests use it."""

    def __init__(self, ended: int) -> None:
        self._ended = ended
        self._lock = threading.Lock()
        self.returncode: int | None = None
        self.pid = int.from_bytes(os.read(ended, 4), "big")
        if not self.pid:
            os.close(ended)
            raise RuntimeError("the fork server has ended")

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended it; None while it runs."""
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raises subprocess.TimeoutExpired."""
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.send_signal(signal.SIGKILL)

    def _ended_within(self, seconds: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._ended], [], [], seconds)[0]:
                status = os.read(self._ended, 4)
                # Without a status the server was killed, and all its children with it.
                self.returncode = int.from_bytes(status, "big", signed=True) if status else -signal.SIGKILL
                os.close(self._ended)
            return self.returncode


class ForkServer:
    """Client of the process that forks commands; it is started by the first request."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ours: socket.socket | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """End it, and with it what it has forked."""
        if self._process is not None and self._ours is not None:
            self._ours.close()
            self._process.wait(60)

    def start(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
    ) -> Forked:
        """Fork the command; the three streams stay open on this side."""
        request = {
            "arguments": list(arguments),
            "directory": str(directory),
            "environment": dict(environment),
        }
        ours, theirs = os.pipe()
        try:
            socket.send_fds(self._connected(), [json.dumps(request).encode()], [*streams, theirs])
        finally:
            os.close(theirs)
        return Forked(ours)

    def run(
        self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, as `subprocess.run(…, capture_output=True, text=True)` does."""
        until = time.monotonic() + timeout
        pipes = [os.pipe(), os.pipe()]
        streams = (0, pipes[0][1], pipes[1][1])
        process = self.start(arguments, directory, environment, streams)
        shown: dict[int, bytes] = {}
        for ours, theirs in pipes:
            os.close(theirs)
            shown[ours] = b""
        reading = set(shown)
        while reading:
            readable = select.select(list(reading), [], [], max(until - time.monotonic(), 0))[0]
            if not readable:
                process.kill()
                raise subprocess.TimeoutExpired(list(arguments), timeout)
            for ours in readable:
                block = os.read(ours, 65536)
                shown[ours] += block
                if not block:
                    reading.discard(ours)
                    os.close(ours)
        code = process.wait(max(until - time.monotonic(), 0))
        out, err = (io.TextIOWrapper(io.BytesIO(block), "utf-8").read() for block in shown.values())
        return subprocess.CompletedProcess(list(arguments), code, out, err)

    def _connected(self) -> socket.socket:
        with self._lock:
            if self._ours is None:
                self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST_REQUEST)
                with theirs:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                        cwd=ROOT,
                        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
                        stdin=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()],
                    )
            return self._ours


@cache
def fork_server() -> ForkServer:
    """Return the fork server of this process, which ends with it."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def _import_product() -> None:
    """Import every module of the product."""
    for module in pkgutil.walk_packages(containerstacks_billing.__path__, "containerstacks_billing."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    setproctitle("tests.forked")  # the room for titles is found while the environment stands where it stood
    gc.collect()
    gc.freeze()


def _serve(requests: socket.socket) -> None:
    """Fork a child for each request until the other side is gone; then kill those that are left."""
    children: dict[int, int] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    while True:
        readable = select.select([requests, wake_read], [], [])[0]
        if wake_read in readable:
            os.read(wake_read, 4096)
            _reap(children)
        if requests in readable:
            request, descriptors, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 4)
            if not request:
                break
            pid = os.fork()
            if pid == 0:
                for inherited in (requests.detach(), wake_read, wake_write, *children.values()):
                    os.close(inherited)
                _become(json.loads(request), descriptors)
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            children[pid] = descriptors[3]
            os.write(descriptors[3], pid.to_bytes(4, "big"))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    while children:
        signal.set_wakeup_fd(-1)
        _reap(children, 0)


def _reap(children: dict[int, int], options: int = os.WNOHANG) -> None:
    while children:
        pid, status = os.waitpid(-1, options)
        if not pid:
            return
        ended = children.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(BrokenPipeError):  # a test that failed does not wait
            os.write(ended, code.to_bytes(4, "big", signed=True))
        os.close(ended)


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the command, as `python -m containerstacks_billing` is, to the end of the process."""
    code: object = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(descriptors[3])
        for place, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, place)
            os.close(descriptor)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        if "PYTHONWARNINGS" in os.environ:
            warnings.simplefilter(os.environ["PYTHONWARNINGS"])  # type: ignore[arg-type]
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = [
            str(Path(containerstacks_billing.__file__).with_name("__main__.py")),
            *request["arguments"],
        ]
        cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        # The rest of an interpreter's end would only free memory.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _import_product()
    _serve(socket.socket(fileno=int(sys.argv[1])))
