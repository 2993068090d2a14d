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

from containerstacks_billing.notifications.model import signature

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"
SECRET = "a-long-random-text"
BODY = '{"kind":"past_due","data":{"label":"größer"}}'.encode()


def example(language: str) -> str:
    found = re.search(rf"<!-- example: {language} -->\n```\w+\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found, f"the document has no example for {language}"
    return found[1]


def cases() -> list[tuple[bool, str, str, bytes]]:
    """Whether it is genuine, the secret, the header, the body."""
    now = int(time.time())
    genuine = signature(SECRET, BODY, now)
    return [
        (True, SECRET, genuine, BODY),
        (False, "another-secret", genuine, BODY),
        (False, SECRET, genuine, BODY + b" "),
        (False, SECRET, signature(SECRET, BODY, now - 301), BODY),
        (False, SECRET, genuine.replace(f"t={now}", f"t={now + 1}"), BODY),
        (False, SECRET, "", BODY),
        (False, SECRET, "t=,v1=", BODY),
        (False, SECRET, f"t={now},v1=zz", BODY),
        (False, SECRET, "nonsense", BODY),
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
    given = [[secret, header, body.hex()] for _, secret, header, body in cases()]
    program = (
        example("node")
        + f"const given = {json.dumps(given)};"
        + "console.log(JSON.stringify(given.map(([s, h, b]) => isGenuine(s, h, Buffer.from(b, 'hex')))));"
    )
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True)
    assert [case[0] for case in cases()] == json.loads(done.stdout)
