"""Access checks for the user of a unit: can it execute the program and read the .env, and who else can change them.

systemd reports `status=203/EXEC` and nothing else. These checks visit every parent directory and symbolic link of the
path and name the culprit with the command that mends it. They decide by mode bits; where this process may act as that
user, the program is really started too, because access lists and mount options count as well.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from containerstacks_billing.findings import Finding, fail, ok, warn

_HOMES = (Path("/root"), Path("/home"), Path("/run/user"))
_START_SECONDS = 30
_LINKS_AT_MOST = 40


@dataclass(frozen=True)
class Account:
    """The user that a unit runs as, with all groups."""

    name: str
    uid: int
    gid: int
    groups: frozenset[int]

    def may(self, status: os.stat_result, right: int) -> bool:
        """Return whether the mode bits grant a right: 4 to read, 2 to write, 1 to execute or traverse."""
        if self.uid == 0:
            return right != 1 or stat.S_ISDIR(status.st_mode) or bool(status.st_mode & 0o111)
        if status.st_uid == self.uid:
            return bool(status.st_mode & right << 6)
        if status.st_gid in self.groups:
            return bool(status.st_mode & right << 3)
        return bool(status.st_mode & right)


def account(name: str) -> Account | None:
    """Return the account of a user name; None when it does not exist."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)


def as_new_user(name: str) -> Account | None:
    """Return the rights that a system user of this name will have: those of nobody, which has none of its own."""
    nobody = account("nobody")
    return None if nobody is None else replace(nobody, name=name)


def steps_to(path: Path) -> Iterator[Path]:
    """Yield every directory and link on the way to a path, then its target."""
    pending, links = [path], 0
    seen: set[Path] = set()
    while pending:
        target = pending.pop()
        for step in (*reversed(target.parents), target):
            if step in seen:
                continue
            seen.add(step)
            yield step
            if step.is_symlink() and links < _LINKS_AT_MOST:
                links += 1
                rest = target.relative_to(step)
                pending.append(Path(os.path.normpath(step.parent / step.readlink())) / rest)
                break


def programs_of(executable: Path) -> list[Path]:
    """Return a script and the interpreter of its first line, which has to be reachable too."""
    try:
        with executable.open("rb") as file:
            first = file.readline(4096)
    except OSError:
        return [executable]
    if not first.startswith(b"#!"):
        return [executable]
    words = first[2:].decode(errors="replace").split()
    return [executable, Path(words[0])] if words else [executable]


def examine_executable(executable: Path, user: Account, *, hardened: bool) -> list[Finding]:
    """Return findings about what leads to 203/EXEC and about who else could change the program."""
    programs = programs_of(executable)
    findings: list[Finding] = []
    for program in programs:
        hidden = next(filter(in_a_home, steps_to(program)), None) if hardened else None
        findings += [_in_a_home(hidden)] if hidden else []
        findings += filter(None, [_unreachable(program, user)])
    if not findings and os.geteuid() in {0, user.uid}:
        findings += _starts(executable, user)
    findings += filter(None, [_changeable(program, user) for program in programs])
    return findings or [ok("executable", f"{executable} can be executed by {user.name}")]


def in_a_home(path: Path) -> bool:
    """Return whether ProtectHome=yes hides a path."""
    return any(home in path.parents for home in _HOMES)


def _in_a_home(step: Path) -> Finding:
    return fail(
        "executable",
        f"203/EXEC: {step} lies in a home, which the hardened unit does not see (ProtectHome=yes).",
        "Install under /opt/containerstacks with a Python that lies in no home (PYTHON=/usr/bin/python3),"
        "\nor write a unit for a checkout: containerstacks-billing service install --dev",
    )


def _elsewhere(step: Path) -> str:
    """Return the alternative of installing elsewhere, unless the program is there already."""
    usual = Path("/opt/containerstacks")
    return "" if step == usual or usual in step.parents else f", or install under {usual}"


def _unreachable(program: Path, user: Account) -> Finding | None:
    """Return what keeps a user from a program: the first step that is missing or closed, or the program itself."""
    for step in steps_to(program):
        try:
            status = step.lstat()
        except FileNotFoundError:
            return fail(
                "executable",
                f"203/EXEC: {step} does not exist.",
                "Install the program there (./dev in the checkout makes .venv), or write the unit again:\n"
                "containerstacks-billing service install",
            )
        except OSError as error:
            return warn("executable", f"{step} cannot be looked at: {error.strerror}.", "Run this as root.")
        if stat.S_ISDIR(status.st_mode) and not user.may(status, 1):
            return fail(
                "executable",
                f"203/EXEC: {user.name} cannot pass through {step} (mode {stat.S_IMODE(status.st_mode):04o}).",
                f"Let it through: chmod o+x {shlex.quote(str(step))}{_elsewhere(step)}.",
            )
    status = step.stat()
    if stat.S_ISDIR(status.st_mode):
        return fail("executable", f"203/EXEC: {step} is a directory.", "Name the program in ExecStart=.")
    if not (user.may(status, 1) and user.may(status, 4)):
        return fail(
            "executable",
            f"203/EXEC: {user.name} may not execute {step} (mode {stat.S_IMODE(status.st_mode):04o}).",
            f"Permission denied is mended by: chmod 755 {shlex.quote(str(step))}",
        )
    return None


def _starts(executable: Path, user: Account) -> Iterator[Finding]:
    """Run `--version` as that user; the kernel applies access lists and mount options too."""
    identity = {} if os.geteuid() == user.uid else {"user": user.uid, "group": user.gid}
    groups = {"extra_groups": sorted(user.groups)} if identity else {}
    try:
        done = subprocess.run(
            [str(executable), "--version"],
            cwd="/",
            env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
            **identity,  # type: ignore[call-overload]
            **groups,
        )
    except OSError as error:
        yield fail(
            "executable",
            f"203/EXEC: {executable} cannot be executed by {user.name}: {error.strerror}.",
            "Look for a mount with noexec, an access list, or an interpreter that is gone: head -1 "
            + shlex.quote(str(executable)),
        )
    except subprocess.TimeoutExpired:
        yield warn("executable", f"{executable} --version did not answer within {_START_SECONDS} s.")
    else:
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1][:300]
            yield fail(
                "executable",
                f"{executable} does not work for {user.name}: {said}",
                "Its dependencies are missing or unreadable; install it again.",
            )


def _changeable(program: Path, user: Account) -> Finding | None:
    """Return the first step on the way to a program that others can change."""
    for step in steps_to(program):
        try:
            status = step.lstat()
        except OSError:
            return None
        who = None if stat.S_ISLNK(status.st_mode) else _writers(status, user)
        if who:
            return warn(
                "executable",
                f"{step} can be changed by {who}, who could make the daemon run anything.",
                f"chown root:root {shlex.quote(str(step))} && chmod go-w {shlex.quote(str(step))}",
            )
    return None


def _writers(status: os.stat_result, user: Account) -> str | None:
    """Return who else may write; in a sticky directory only owners replace files."""
    if status.st_uid not in {0, user.uid}:
        return _user_name(status.st_uid)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return "all users"
    if status.st_mode & stat.S_IWGRP and status.st_gid not in {0, user.gid}:
        return f"the group {_group_name(status.st_gid)}"
    return None


def examine_env_file(path: Path, user: Account, *, handed_over: bool = False) -> list[Finding]:
    """Return findings about who can read the environment file: the user of the unit has to, others must not."""
    check, quoted = ".env of the unit", shlex.quote(str(path))
    try:
        status = path.stat()
    except FileNotFoundError:
        return [fail(check, f"{path} does not exist.", "Name the host application's .env: --env-file FILE.")]
    except OSError as error:
        return [warn(check, f"{path} cannot be looked at: {error.strerror}.", "Run this as root.")]
    mode, owner = f"{stat.S_IMODE(status.st_mode):04o}", _user_name(status.st_uid)
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return [fail(check, f"{path} is open to all users (mode {mode}).", f"Run: chmod 600 {quoted}")]
    if handed_over:
        return [ok(check, f"{path}: mode {mode}, of {owner}; systemd hands over a private copy")]
    hidden = next((p for p in reversed(path.parents) if not user.may(p.stat(), 1)), None)
    if hidden or not user.may(status, 4):
        what = f"cannot pass through {hidden}" if hidden else f"may not read {path} (mode {mode}, of {owner})"
        return [
            fail(
                check,
                f"Permission denied: {user.name} {what}.",
                "Let systemd hand over a copy: containerstacks-billing service install,\n"
                f"or let the user read it: chown {user.name}: {quoted} && chmod 600 {quoted}",
            )
        ]
    return [ok(check, f"{path}: mode {mode}, of {owner}, readable by {user.name}")]


def readable(path: Path, user: Account) -> bool:
    """Return whether a user can read a file."""
    return all(finding.level == "OK" for finding in examine_env_file(path, user))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
