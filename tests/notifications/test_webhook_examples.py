"""The examples of docs/webhooks.md, run as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from containerstacks_billing.notifications.model import signature, signing_keys

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "A" * 32
ID = "3f0c8f9e-5c0e-4a55-a1e4-1d0c2f7c3a10"
BODY = '{"kind":"past_due","data":{"label":"größer"}}'.encode()


def example(language: str) -> str:
    found = re.search(rf"<!-- example: {language} -->\n```\w+\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found, f"the document has no example for {language}"
    return found[1]


def cases() -> list[tuple[bool, str, dict[str, str], bytes]]:
    """Whether it is genuine, the secret, the headers, the body."""
    now = int(time.time())

    def headers(secrets: str, stamp: int, **changes: str) -> dict[str, str]:
        signed = signature(signing_keys(secrets), ID, stamp, BODY)
        made = {"webhook-id": ID, "webhook-timestamp": str(stamp), "webhook-signature": signed}
        return made | {name.replace("_", "-"): value for name, value in changes.items()}

    genuine = headers(SECRET, now)
    return [
        (True, SECRET, genuine, BODY),
        (True, SECRET, headers(f"{OTHER},{SECRET}", now), BODY),
        (False, OTHER, genuine, BODY),
        (False, SECRET, genuine, BODY + b" "),
        (False, SECRET, headers(SECRET, now - 301), BODY),
        (False, SECRET, headers(SECRET, now, webhook_timestamp=str(now + 1)), BODY),
        (False, SECRET, headers(SECRET, now, webhook_id="another"), BODY),
        (False, SECRET, headers(SECRET, now, webhook_signature=""), BODY),
        (False, SECRET, headers(SECRET, now, webhook_signature="v1,"), BODY),
        (False, SECRET, headers(SECRET, now, webhook_signature="v2,zz nonsense"), BODY),
        (False, SECRET, headers(SECRET, now, webhook_timestamp="soon"), BODY),
        (False, SECRET, {}, BODY),
    ]


def test_the_python_example_tells_genuine_from_forged() -> None:
    """A host copies it, so it has to be right."""
    names: dict[str, Any] = {}
    exec(example("python"), names)
    assert [case[0] for case in cases()] == [names["is_genuine"](*case[1:]) for case in cases()]


def test_the_node_example_tells_genuine_from_forged() -> None:
    """The host application is written for Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    given = [[secret, headers, body.hex()] for _, secret, headers, body in cases()]
    program = (
        example("node")
        + f"const given = {json.dumps(given)};"
        + "console.log(JSON.stringify(given.map(([s, h, b]) => isGenuine(s, h, Buffer.from(b, 'hex')))));"
    )
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True)
    assert [case[0] for case in cases()] == json.loads(done.stdout)
