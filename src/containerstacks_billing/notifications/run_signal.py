"""Dead man's switch: a GET to HEARTBEAT_URL after each completed run, by whichever process billed.

A service outside alerts when the signal stays away: the one case that nothing here can report. It is sent for runs of
the whole fleet that completed. A held or failed run is silence, or with HEARTBEAT_STEPS=on a GET to /fail, as /start is
when a run begins. A signal that cannot be sent is a warning and takes nothing away from billing. The path of the
address is a secret: logs and errors name its host alone.
"""

from __future__ import annotations

import threading
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from containerstacks_billing import logs
from containerstacks_billing.notifications.http_post import PostFailed, get
from containerstacks_billing.settings import Settings

SECONDS = 10.0
_LAST_ACCEPTED = 299
Step = Literal["completed", "start", "fail"]


def send(address: str, step: Step = "completed") -> str | None:
    """Send one signal, within ten seconds; return why it was not accepted, without the address, or None."""
    try:
        status = get(_address_of(address, step), SECONDS)
    except PostFailed as failed:
        return str(failed)
    # A redirect is not followed: it would carry the secret path to another host.
    return None if status <= _LAST_ACCEPTED else f"the receiver answered {status}"


def signal_run(settings: Settings, step: Step) -> threading.Thread | None:
    """Send the signal of a run beside billing, if it is wanted; return the thread that does it."""
    if settings.heartbeat_url is None or (step != "completed" and settings.heartbeat_steps == "off"):
        return None
    address = settings.heartbeat_url.get_secret_value()
    thread = threading.Thread(target=_send_and_log, args=(address, step), name="run-signal", daemon=True)
    thread.start()
    return thread


def _send_and_log(address: str, step: Step) -> None:
    if problem := send(address, step):
        logs.logger().warning(
            "HEARTBEAT_URL was not reached, so its receiver may raise an alarm",
            host=urlsplit(address).hostname,
            reason=problem,
            hint="Try it: containerstacks-billing doctor --ping",
        )


def _address_of(address: str, step: Step) -> str:
    parts = urlsplit(address)
    path = parts.path if step == "completed" else f"{parts.path.rstrip('/')}/{step}"
    return urlunsplit(parts._replace(path=path))
