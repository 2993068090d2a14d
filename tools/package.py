"""Wheel, Debian package, software bill of materials and checksums of one version, into dist/.

    ./dev package              everything
    ./dev package --out DIR    elsewhere
    ./dev package --no-deb     without the Debian package, which needs dpkg-deb and the Python of Debian

The same commit makes the same bytes: every time in them is that of the commit, or SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tools import bill_of_materials, debian_package

from containerstacks_billing import __version__

ROOT = Path(__file__).resolve().parent.parent
BASE_LOCK = ROOT / "requirements-base.lock"


def epoch_of_the_commit() -> int:
    """Return the seconds of SOURCE_DATE_EPOCH, else those of the commit; 0 outside of a repository."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return int(done.stdout.strip() or 0)


def build_wheel(out: Path, epoch: int) -> Path:
    """Build the wheel; return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return out / f"containerstacks_billing-{__version__}-py3-none-any.whl"


def checksums(out: Path, files: list[Path]) -> Path:
    """Write SHA256SUMS as `sha256sum --check` reads it; return its path."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in sorted(files)]
    sums = out / "SHA256SUMS"
    sums.write_text("\n".join(lines) + "\n")
    return sums


def main(words: list[str]) -> int:
    """Build everything; print each file with its size."""
    parser = argparse.ArgumentParser(
        prog="./dev package", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR")
    parser.add_argument("--no-deb", action="store_true", help="leave the Debian package away")
    chosen = parser.parse_args(words)
    out, epoch = chosen.out.resolve(), epoch_of_the_commit()
    out.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel(out, epoch)
    made = [wheel, bill_of_materials.write(out, BASE_LOCK, epoch)]
    if not chosen.no_deb:
        try:
            made.append(debian_package.build(wheel, BASE_LOCK, out, epoch))
        except debian_package.Missing as missing:
            print(f"error: {missing}", file=sys.stderr)
            return 1
    made.append(checksums(out, made))
    for file in made:
        print(f"{file.stat().st_size / 1024:>9,.0f} KiB  {file.relative_to(out.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
