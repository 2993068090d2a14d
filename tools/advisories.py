"""Known vulnerabilities of the locked dependencies.

pip-audit runs in an environment of its own, apart from that of the product. What it prints is judged here, because it
ends with 0 after an index that answered for no package at all, and with 1 both for a vulnerability and for no answer.

    python -m tools.advisories [OPTION …]    further options go to pip-audit, such as --vulnerability-service osv

Exit code 0: every package was answered for, and nothing is known. 1: something is known. 75: the database could not be
asked, or not about every package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
CLEAN, VULNERABLE, NOT_ASKED = 0, 1, 75


def judge(output: str, complaint: str) -> tuple[int, list[str]]:
    """Return the exit code and the message for what pip-audit wrote as JSON and on stderr."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = complaint.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        return NOT_ASKED, [f"advisories: the database of vulnerabilities could not be asked: {last[0]}"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    known = [
        f"{package['name']} {package['version']}: {one['id']}"
        f" (repaired in {', '.join(one['fix_versions']) or 'no version yet'})"
        for package in packages
        for one in package.get("vulns", [])
    ]
    answered = len(packages) - len(skipped)
    if not answered:
        reason = f"the index has no such data for any of {len(packages)} packages"
        return NOT_ASKED, [f"advisories: the database of vulnerabilities could not be asked: {reason}"]
    if skipped:
        known.append(f"advisories: no answer about {', '.join(skipped)}")
    known.append(f"advisories: {answered} of {len(packages)} packages answered for")
    if any(package.get("vulns") for package in packages):
        return VULNERABLE, known
    return (NOT_ASKED if skipped else CLEAN), known


def _program() -> list[str]:
    """Return how pip-audit is started; installs it beside the other private environments, unless uv keeps one."""
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--quiet", "pip-audit"]
    place = Path(sys.prefix) / "advisories"
    program = place / "bin" / "pip-audit"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(place / "bin" / "pip"), "install", "-qq", "pip-audit"], check=True)
    return [str(program)]


def main(options: list[str]) -> int:
    """Look up every package of requirements.lock that would be installed on this machine; return the exit code."""
    try:
        program = _program()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"advisories: pip-audit could not be installed, so nothing was asked: {error}", file=sys.stderr)
        return NOT_ASKED
    asked = [*program, "--requirement", str(LOCK), "--disable-pip", "--format=json", "--progress-spinner=off"]
    done = subprocess.run([*asked, *options], check=False, capture_output=True, text=True)
    code, said = judge(done.stdout, done.stderr)
    print("\n".join(said), file=sys.stderr if code == NOT_ASKED else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
