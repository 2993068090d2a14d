"""Parser of the host application's `.env` file, compatible with Node's dotenv.

The file belongs to a Node.js program: quotes of three kinds, `export`, comments, CRLF, a byte order mark, unknown keys
and private keys over several lines are read. A line that is no assignment is ignored, as by the host application, with
a warning. A line with a key of ours that can be read in two ways is refused: a wrong guess about `DATABASE_URL` would
bill the wrong database. Messages name the line and the key, never the value.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.settings import KEYS

_LARGEST_FILE_BYTES = 1_048_576
_LINES_NAMED = 5

# The file holds secrets, so the hint does not advise to change its owner or mode.
_FOREIGN_HINT = (
    "Repeat the command with sudo, or name another file with --env-file. "
    "A service gets it by: sudo containerstacks-billing service install"
)

_ASSIGNMENT = re.compile(r"\s*(export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)(\s*=\s*|:\s+)(.*)", re.DOTALL)
_COMMENT_AFTER_QUOTE = re.compile(r"\s*(#.*)?")


@dataclass(frozen=True)
class Entry:
    """One assignment: its key, its value as the host application reads it, where it stands.

    `systemd_reading` says why systemd's EnvironmentFile= would read the line differently; None when it would
    not.
    """

    key: str
    value: str
    line: int
    systemd_reading: str | None


@dataclass(frozen=True)
class EnvFile:
    """A file that was read: the last assignment of each key, and warnings about the file itself."""

    path: Path
    entries: dict[str, Entry]
    warnings: tuple[str, ...]


def read_env_file(path: Path) -> EnvFile | None:
    """Read an environment file; None when there is no such file.

    Raises ConfigurationError when others can read or write it, when it cannot be read, or when a line is
    malformed.
    """
    try:
        content, mode = read_regular_file(path, _LARGEST_FILE_BYTES)
    except FileNotFoundError:
        if path.is_symlink():
            # The link was meant to be read; without its file another database might be billed.
            raise ConfigurationError(
                f"{path} is a link to {path.readlink()}, which does not exist.",
                hint="Put the file there, or mend or remove the link.",
            ) from None
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {(error.strerror or 'unknown reason').lower()}.",
            hint=_FOREIGN_HINT,
        ) from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigurationError(f"{path} is larger than 1 MiB.", hint="Name the right file with --env-file.")
    warnings = _judge_mode(path, mode)
    passed_over: list[int] = []
    entries = parse(_decoded(path, content), str(path), passed_over)
    return EnvFile(path, entries, (*warnings, *_remark(path, passed_over)))


def read_regular_file(path: Path, most_bytes: int) -> tuple[bytes, int]:
    """Return at most one byte more than `most_bytes` of a file, and its mode.

    Raises OSError, and ConfigurationError for anything but a regular file: reading a named pipe could wait for ever.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file.read(most_bytes + 1), mode
    kind = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
    raise ConfigurationError(f"{path} is {kind}, not a file.", hint="Name a file with --env-file.")


def _remark(path: Path, lines: list[int]) -> tuple[str, ...]:
    """Return a warning with the numbers of lines that are no assignments; their content may be a private key."""
    if not lines:
        return ()
    if len(lines) == 1:
        return (f"{path}, line {lines[0]}: is not KEY=value and is passed over.",)
    named = ", ".join(map(str, lines[:_LINES_NAMED]))
    more = f" and {len(lines) - _LINES_NAMED} more" if len(lines) > _LINES_NAMED else ""
    return (f"{path}, lines {named}{more}: are not KEY=value and are passed over.",)


def _judge_mode(path: Path, mode: int) -> tuple[str, ...]:
    """Refuse a file that others can read or write; return a warning for one that its group can."""
    remedy = f"chmod 600 {shlex.quote(str(path))}"
    octal = f"{stat.S_IMODE(mode):04o}"
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        what = "readable" if mode & stat.S_IROTH else "writable"
        raise ConfigurationError(f"{path} is {what} by others (mode {octal}).", hint=f"Run: {remedy}")
    if mode & (stat.S_IRGRP | stat.S_IWGRP):
        what = "readable" if mode & stat.S_IRGRP else "writable"
        return (f"{path} is {what} by its group (mode {octal}); unless that is meant, run: {remedy}",)
    return ()


def _decoded(path: Path, content: bytes) -> str:
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ConfigurationError(
            f"{path}, line {line}: holds a NUL byte.", hint="Write the file as plain UTF-8 text."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{path}, line {line}: is not UTF-8 text.", hint="Write the file as plain UTF-8 text."
        ) from None


def parse(text: str, name: str = ".env", passed_over: list[int] | None = None) -> dict[str, Entry]:
    """Read assignments out of the text of a file; a later one replaces an earlier one.

    `name` stands for the file in messages, and `passed_over` takes the numbers of stray lines. Raises
    ConfigurationError naming line and key where a line of ours cannot be read.
    """
    lines = re.split(r"\r\n|\n|\r", text)
    entries: dict[str, Entry] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _ASSIGNMENT.fullmatch(line)
        if found is None:
            if key_of_ours := _key_of(line):
                raise _malformed(name, number, key_of_ours, "is not KEY=value")
            if passed_over is not None:
                passed_over.append(number)
            continue
        export, key, separator, rest = found.groups()
        value, consumed = _value(key, rest, lines[number:], name, number)
        reading = _systemd_reading(export, separator, rest, consumed)
        entries[key] = Entry(key, value, number, reading)
        number += consumed
    return entries


def _key_of(line: str) -> str | None:
    """Return the key of ours that a malformed line names: as its first word, or before a = or : anywhere in it."""
    first = re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)", line)
    words = [first.group(1)] if first else []
    words += re.findall(r"(?<![A-Za-z0-9_])([A-Z_]+)\s*[=:]", line)
    return next((word for word in words if word in KEYS), None)


def _malformed(name: str, line: int, key: str | None, what: str) -> ConfigurationError:
    subject = f" {key}" if key else ""
    return ConfigurationError(
        f"{name}, line {line}:{subject} {what}.",
        hint="Correct the line, or put a # before it if it is a remark.",
    )


def _value(key: str, rest: str, following: list[str], name: str, line: int) -> tuple[str, int]:
    """Return the value of an assignment and how many following lines belong to it."""
    quote = rest[:1]
    if quote not in ("'", '"', "`"):
        return _unquoted(rest), 0
    end = _closing(rest, quote)
    if end is not None and _COMMENT_AFTER_QUOTE.fullmatch(rest[end + 1 :]):
        return _unescaped(rest[1:end], quote), 0
    if key in KEYS:
        what = "opens a quote that it does not close" if end is None else "has text after its closing quote"
        raise _malformed(name, line, key, what)
    if end is not None:
        return _unquoted(rest), 0
    for consumed in range(1, len(following) + 1):
        swallowed = _ASSIGNMENT.fullmatch(following[consumed - 1])
        if swallowed and swallowed.group(2) in KEYS:
            raise _malformed(name, line, None, f"opens a quote that swallows {swallowed.group(2)} below it")
        joined = "\n".join([rest, *following[:consumed]])
        end = _closing(joined, quote)
        if end is not None:
            return _unescaped(joined[1:end], quote), consumed
    return _unquoted(rest), 0


def _closing(text: str, quote: str) -> int | None:
    """Return where the quote at position 0 is closed; a backslash protects inside double quotes."""
    position = 1
    while position < len(text):
        if text[position] == "\\" and quote == '"':
            position += 2
            continue
        if text[position] == quote:
            return position
        position += 1
    return None


def _unescaped(text: str, quote: str) -> str:
    """Expand line breaks inside double quotes, all that the host application's reader expands."""
    return text.replace(r"\n", "\n").replace(r"\r", "\r") if quote == '"' else text


def _unquoted(rest: str) -> str:
    """Cut a trailing remark, which begins with a # after a space, and surrounding space."""
    return re.sub(r"(^|\s+)#.*", "", rest, flags=re.DOTALL).strip()


def _systemd_reading(export: str | None, separator: str, rest: str, consumed: int) -> str | None:
    if export:
        return "systemd ignores a line that begins with export"
    if "=" not in separator:
        return "systemd knows no : after a key"
    if rest[:1] == "`":
        return "systemd knows no backquotes"
    if "\\" in rest:
        return "systemd reads a backslash as an escape"
    if consumed == 0 and re.search(r"\s#", rest):
        return "systemd takes a remark after a value for part of the value"
    return None
