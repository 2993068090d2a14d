"""Rendering of the systemd units, for the delivered files and for `service install`.

**What the unit decides.** A configuration that no attempt will mend (exit 78), a program that cannot be executed (203)
and a user that does not exist (217) are not tried again; everything else is, without limit, because a daemon that gave
up at night would charge nothing until an operator restarts it. A stop may take longer than the slowest batch: the
current cycle is completed, and while batches are committed the daemon extends the stop timeout itself. Core dumps are
off, since the password of the database would be in them.

**Why the program reads .env and not systemd.** What EnvironmentFile= hands over is fixed until the next start, and
systemd reads quotes, backslashes and remarks in its own way. The program reads the file itself, so that a reload
finds a rotated password. A file that only root may read is handed over as a credential instead, a private copy made
at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DAEMON_UNIT = "containerstacks-billing.service"
APP_UNIT = "containerstacks-billing-app.service"
MARK = "# Written by `containerstacks-billing service install`; local changes belong into `systemctl edit`."
DEFAULT_USER = "containerstacks-billing"
DEFAULT_DIRECTORY = Path("/opt/containerstacks")
DEV_DIRECTORY = Path("/root/containerstacks")
RELOAD_REFUSED = "Nothing was reloaded, because systemd hands over a copy of .env at a start only. Run:"
# Exit codes that another start would only repeat: ours for a wrong configuration, systemd's EXEC and USER.
FINAL_EXITS = (78, 203, 217)
_GROWING_PAUSES_SINCE = 254  # the version of systemd that knows RestartSteps=


@dataclass(frozen=True)
class Unit:
    """What a unit is made from.

    `hardened` confines the process to what it needs and runs it as `user`; otherwise it runs where a developer keeps a
    checkout, homes included. `private_env_file` says that `user` cannot read the file, so that systemd has to hand it
    over.
    """

    executable: Path
    directory: Path
    env_file: Path | None
    user: str
    hardened: bool = True
    serves: bool = False
    private_env_file: bool = False
    systemd_version: int = 252

    @property
    def name(self) -> str:
        """The name under which systemd knows it."""
        return APP_UNIT if self.serves else DAEMON_UNIT


def delivered() -> dict[str, Unit]:
    """Return the units that come with the program, by file name; they fit the places that the documents name."""
    opt, dev = DEFAULT_DIRECTORY, DEV_DIRECTORY
    return {
        # Root's alone, as the host application's file often is, it can be read in no other way.
        DAEMON_UNIT: Unit(executable_in(opt), opt, opt / ".env", DEFAULT_USER, private_env_file=True),
        APP_UNIT: Unit(
            executable_in(opt), opt, opt / ".env", DEFAULT_USER, serves=True, private_env_file=True
        ),
        "containerstacks-billing-dev.service": Unit(
            executable_in(dev), dev, dev / ".env", "root", hardened=False
        ),
    }


def executable_in(directory: Path) -> Path:
    """Return where an installation in a directory has its command."""
    return directory / ".venv" / "bin" / "containerstacks-billing"


def guide_of(executable: Path) -> Path:
    """Return where the environment of a command has its guide; the wheel and a checkout both install it there."""
    return executable.parents[1] / "share" / "doc" / "containerstacks-billing" / "docs" / "billing-daemon.md"


def written(unit: Unit) -> str:
    """Write the unit file."""
    sections = [_unit(unit), _service(unit)]
    if unit.hardened:
        sections.append(_HARDENING)
    else:
        sections.append(_CHECKOUT)
    return f"{MARK}\n\n" + "\n".join(sections) + "\n[Install]\nWantedBy=multi-user.target\n"


def _unit(unit: Unit) -> str:
    what = "application side" if unit.serves else "daemon"
    return f"""\
[Unit]
Description=ContainerStacks billing {what}
Documentation={guide_of(unit.executable).as_uri().replace("%", "%%")}
Wants=network-online.target
After=network-online.target postgresql.service
RequiresMountsFor={_quoted(unit.directory)} {_quoted(unit.executable.parent)}
# It waits for its database by itself, and is never given up: a failure is repeated after a pause.
StartLimitIntervalSec=0
"""


def _service(unit: Unit) -> str:
    if unit.serves:
        said = "# READY comes from the program itself, when it answers; a start waits for that."
    else:
        said = "# READY, the status line and the watchdog come from the daemon itself."
    lines = ["[Service]", said, "Type=notify", "NotifyAccess=main"]
    if not unit.serves:
        lines += ["WatchdogSec=120"]
    lines += [f"User={unit.user}", f"WorkingDirectory={_specified(unit.directory)}", *_env_file(unit)]
    lines += [f"ExecStart={_command(unit.executable)} {'serve' if unit.serves else 'daemon'}"]
    if not unit.serves:
        lines += _reload(unit)
    lines += [
        "SyslogIdentifier=containerstacks-billing" + ("-app" if unit.serves else ""),
        "",
        "Restart=on-failure",
        *_pauses(unit.systemd_version),
        "# Wrong configuration, no such program, no such user: another start changes nothing.",
        f"RestartPreventExitStatus={' '.join(str(code) for code in FINAL_EXITS)}",
        "",
        "# The first signal goes to the program alone, which completes the current billing cycle.",
        "KillMode=mixed",
        f"TimeoutStopSec={30 if unit.serves else 300}",
        "TimeoutAbortSec=20",
        "# A dump of the memory would hold the password of the database.",
        "LimitCORE=0",
        "OOMPolicy=stop",
        "Environment=PYTHONDONTWRITEBYTECODE=1",
        "",
    ]
    return "\n".join(lines)


def _reload(unit: Unit) -> list[str]:
    """Write what `systemctl reload` does: it takes effect, or fails and names the command that does."""
    if unit.private_env_file:
        refusal = f'level=error event=\\"{RELOAD_REFUSED} systemctl restart {unit.name}\\"'
        return [
            "# The program has the copy of the start, so a reload would change nothing: it fails and says so.",
            f"ExecReload=/bin/sh -c \"echo '<3>{refusal}'; exit 1\"",
        ]
    return ["# Reads the configuration again.", "ExecReload=/bin/kill -HUP $MAINPID"]


def _env_file(unit: Unit) -> list[str]:
    if unit.env_file is None:
        return []
    if unit.private_env_file:
        return [
            "# Readable by its owner alone, so systemd hands over a copy; after a change: systemctl restart.",
            f"LoadCredential=env:{_specified(unit.env_file)}",
            "Environment=CONTAINERSTACKS_ENV_FILE=%d/env",
        ]
    return [
        "# The program reads the file itself, and again at every reload. Instead of a password in it:",
        "# LoadCredential=database_url:/etc/containerstacks-billing/database_url",
        f"Environment={_assignment('CONTAINERSTACKS_ENV_FILE', unit.env_file)}",
    ]


def _pauses(systemd_version: int) -> list[str]:
    if systemd_version >= _GROWING_PAUSES_SINCE:
        return ["RestartSec=5", "RestartSteps=6", "RestartMaxDelaySec=5min"]
    return ["RestartSec=10"]


def _specified(path: Path) -> str:
    """Write a path where % begins a specifier."""
    return str(path).replace("%", "%%")


def _escaped(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if set(text) & set(" \t\"'\\") else text


def _quoted(path: Path) -> str:
    return _escaped(_specified(path)) if " " in str(path) else _specified(path)


def _command(path: Path) -> str:
    """Write the program of a command line, in which systemd expands no variable."""
    return _escaped(_specified(path))


def _assignment(key: str, path: Path) -> str:
    return _escaped(f"{key}={_specified(path)}")


_CHECKOUT = """\
# A checkout is in a home directory, so homes stay visible; the rest of the system is not to be written to.
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
UMask=0077
"""

_HARDENING = """\
# It reads its program and its configuration, talks to the database and to a webhook, and writes nothing.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
UMask=0077

ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateMounts=yes
DevicePolicy=closed
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes

RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""
