"""The man page and the completion of shells: both come out of the command, and neither goes stale unnoticed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools import man_page

ROOT = man_page.PAGE.parents[2]


def test_it_says_what_the_command_says() -> None:
    """Every verb, option and setting; write it anew with `python -m tools.man_page`."""
    text = man_page.page()
    assert man_page.PAGE.read_text(encoding="utf-8") == text
    for section in ("NAME", "SYNOPSIS", "OPTIONS", "COMMANDS", "ENVIRONMENT", "EXIT STATUS", "FILES"):
        assert f".SH {section}\n" in text
    assert ".B MAX_CATCH_UP_HOURS\n" in text
    assert "/work" not in text


def test_readers_of_man_pages_have_nothing_to_object() -> None:
    """`man` without a warning, at 80 columns; mandoc's lint where it is there."""
    if shutil.which("man") is None:
        pytest.skip("man is missing: apt-get install man-db groff")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    shown = subprocess.run(
        ["man", "--warnings=w", "-P", "cat", "-l", man_page.PAGE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == shown.stderr
    assert "status --watch" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    if shutil.which("mandoc") is not None:
        subprocess.run(["mandoc", "-T", "lint", "-W", "error,stop", man_page.PAGE], check=True)


TYPED = [
    ("ver", "verify"),
    ("service in", "install"),
    ("run --dr", "--dry-run"),
    ("--da", "--database-url"),
]
NAME = "containerstacks-billing"


def asked(**environment: str) -> str:
    """Ask the command as a shell does."""
    done = subprocess.run(
        [Path(sys.executable).with_name(NAME)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(("typed", "offered"), TYPED)
@pytest.mark.parametrize(
    ("shell", "shape"), [("bash", r"(?m)^plain,(.*)$"), ("zsh", r"plain\n(.*)\n"), ("fish", r"plain,(\S+)")]
)
def test_each_shell_completes_verbs_and_options(shell: str, shape: str, typed: str, offered: str) -> None:
    """The script of --install-completion queries the command itself."""
    words = f"{NAME} {typed}"
    last = typed.rsplit(maxsplit=1)[-1] if shell == "fish" else str(words.count(" "))
    said = asked(_CONTAINERSTACKS_BILLING_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD=last)
    assert [offered] == re.findall(shape, said)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_set_up_by_itself(shell: str, tmp_path: Path) -> None:
    """`--install-completion` sees which shell it runs in; a second time changes nothing."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def run(line: str) -> str:
        command = [shell, "-c", f"{line}; true"]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    assert f"{shell} completion installed" in run(f"{NAME} --install-completion")
    files = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    run(f"{NAME} --install-completion")
    assert files == {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(files) == (1 if shell == "fish" else 2)
    if shell == "fish":
        assert run(f'complete -C "{NAME} service in"').startswith("install\t")
