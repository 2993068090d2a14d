"""Health check of a container: the application side answers, or the daemon bills.

Which of the two this container runs is the last word of its first process. Exit code 0: healthy, 1: not.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path


def words_of_the_first_process() -> list[str]:
    """Return the command line of the container's first process; its title where it has set one."""
    return Path("/proc/1/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()


def application_side_answers() -> bool:
    """Whether /readyz on this container's port says 200."""
    port = int(os.environ.get("PORT") or 3001)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def daemon_bills() -> bool:
    """Whether `status` names the daemon as the biller."""
    command = ["containerstacks-billing", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=9, check=False)
    return done.returncode == 0 and json.loads(done.stdout)["biller"] == "daemon"


def main() -> int:
    """Return the exit code of the check."""
    serves = "serve" in words_of_the_first_process()
    return 0 if (application_side_answers() if serves else daemon_bills()) else 1


if __name__ == "__main__":
    sys.exit(main())
