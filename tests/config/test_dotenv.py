"""The host application's .env: read as it reads it, refused where a reader could go wrong."""

import os
from pathlib import Path

import pytest

from containerstacks_billing.config.dotenv import parse, read_env_file
from containerstacks_billing.errors import ConfigurationError

SECRET = "canary-5d1c6a"


def values(text: str) -> dict[str, str]:
    return {key: entry.value for key, entry in parse(text).items()}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b ", "b"),
        ("export A=b", "b"),
        ("A: b", "b"),
        ("A=", ""),
        ("A='b c'", "b c"),
        ('A="b # c" # remark', "b # c"),
        ("A=b # remark", "b"),
        ("A=b#c", "b#c"),
        ("A=# remark", ""),
        ("A=`b'c`", "b'c"),
        (r'A="b\nc"', "b\nc"),
        (r"A='b\nc'", r"b\nc"),
        ("A=postgresql://u:p=q@h/d?x=y", "postgresql://u:p=q@h/d?x=y"),
        ("A=O'Brien", "O'Brien"),
        ("A='tis", "'tis"),
    ],
)
def test_a_line_is_read_as_the_host_application_reads_it(line: str, value: str) -> None:
    """Quotes, remarks and spaces mean what they mean to the program that owns the file."""
    assert values(line) == {"A": value}


def test_a_file_with_windows_line_ends_a_mark_and_foreign_keys_is_read(tmp_path: Path) -> None:
    """Editors and the host's own keys do not keep billing from starting."""
    path = tmp_path / ".env"
    path.write_bytes(
        b"\xef\xbb\xbf# host\r\nDATABASE_URL=postgresql://h/d\r\n\r\nSTRIPE_KEY='x'\r\nPORT=\"3002\"\r\n"
    )
    path.chmod(0o600)
    read = read_env_file(path)
    assert read is not None
    assert {key: (entry.value, entry.line) for key, entry in read.entries.items()} == {
        "DATABASE_URL": ("postgresql://h/d", 2),
        "STRIPE_KEY": ("x", 4),
        "PORT": ("3002", 5),
    }


def test_a_private_key_over_several_lines_belongs_to_the_host() -> None:
    """The lines of a foreign value are not taken for assignments, and the next key is found."""
    text = 'SSH_KEY="-----BEGIN\nabc=\n-----END"\nPORT=3002'
    assert values(text) == {"SSH_KEY": "-----BEGIN\nabc=\n-----END", "PORT": "3002"}


def test_the_last_assignment_of_a_key_wins() -> None:
    """As everywhere."""
    assert values("PORT=1\nPORT=2") == {"PORT": "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"A=b\nDATABASE_URL {SECRET}", ".env, line 2: DATABASE_URL is not KEY=value."),
        (f"- DATABASE_URL={SECRET}", ".env, line 1: DATABASE_URL is not KEY=value."),
        ("export PORT", ".env, line 1: PORT is not KEY=value."),
        (f'DATABASE_URL="{SECRET}', ".env, line 1: DATABASE_URL opens a quote that it does not close."),
        (
            f'DATABASE_URL="{SECRET}\nB="x"',
            ".env, line 1: DATABASE_URL opens a quote that it does not close.",
        ),
        (f"DATABASE_URL='a'{SECRET}", ".env, line 1: DATABASE_URL has text after its closing quote."),
        (f'A="{SECRET}\nPORT=1\nB="', ".env, line 1: opens a quote that swallows PORT below it."),
    ],
)
def test_a_malformed_line_is_named_without_its_value(text: str, message: str) -> None:
    """Line and key are enough to find it; the value may be a password."""
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    assert str(refused.value) == message
    assert SECRET not in str(refused.value.hint)


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Reading one that nothing writes to would wait for ever."""
    os.mkfifo(tmp_path / ".env", 0o600)
    with pytest.raises(ConfigurationError) as refused:
        read_env_file(tmp_path / ".env")
    assert f"{tmp_path}/.env is a pipe or a device, not a file." == str(refused.value)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_file_open_to_others_is_refused_with_the_command_to_run(tmp_path: Path, mode: int) -> None:
    """Any user of the machine could read the password, or set the database."""
    path = tmp_path / ".env"
    path.write_text("PORT=1")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="by others") as refused:
        read_env_file(path)
    assert refused.value.hint == f"Run: chmod 600 {path}"


def test_a_stray_line_is_passed_over_and_warned_of(tmp_path: Path) -> None:
    """The file is the host's, which passes over it too; the line is named by its number, for it may be a secret."""
    path = tmp_path / ".env"
    path.write_text(f"PORT=1\n{SECRET}\nexport NODE_OPTIONS\nHOST=::1\n")
    path.chmod(0o600)
    read = read_env_file(path)
    assert read is not None
    assert {"PORT": "1", "HOST": "::1"} == {key: entry.value for key, entry in read.entries.items()}
    assert read.warnings == (f"{path}, lines 2, 3: are not KEY=value and are passed over.",)
    path.write_text("PORT=1\n" + "stray\n" * 8)
    assert "lines 2, 3, 4, 5, 6 and 3 more: " in read_env_file(path).warnings[0]  # type: ignore[union-attr]
    path.write_text("stray\n")
    assert (f"{path}, line 1: is not KEY=value and is passed over.",) == read_env_file(path).warnings  # type: ignore[union-attr]


def test_a_file_open_to_its_group_is_read_and_warned_of(tmp_path: Path) -> None:
    """A group may be meant, as with a service user."""
    path = tmp_path / ".env"
    path.write_text("PORT=1")
    path.chmod(0o640)
    read = read_env_file(path)
    assert read is not None
    assert read.warnings == (
        f"{path} is readable by its group (mode 0640); unless that is meant, run: chmod 600 {path}",
    )


@pytest.mark.parametrize(
    ("content", "what"), [(b"A=1\nB=\xff\xfe", "line 2: is not UTF-8"), (b"A=\0", "NUL byte")]
)
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    """A binary file was named by mistake."""
    path = tmp_path / ".env"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=what):
        read_env_file(path)


def test_a_link_into_nowhere_is_refused(tmp_path: Path) -> None:
    """An --env-file that is missing is an error: without it another database might be billed."""
    (tmp_path / ".env").symlink_to(tmp_path / "moved")
    with pytest.raises(ConfigurationError, match=r"\.env is a link to .*/moved, which does not exist"):
        read_env_file(tmp_path / ".env")


def test_no_file_is_no_error(tmp_path: Path) -> None:
    """Whether one is needed is for the caller to say."""
    assert read_env_file(tmp_path / ".env") is None


@pytest.mark.parametrize(
    ("line", "differs"),
    [
        ("PORT=3001", False),
        ("PORT='3001'", False),
        ("PORT=3001 # remark", True),
        ("export PORT=3001", True),
        (r'JWT_SECRET="a\\b"', True),
        ("JWT_SECRET=`a`", True),
    ],
)
def test_a_line_that_systemd_reads_differently_is_marked(line: str, differs: bool) -> None:
    """The same file serves as EnvironmentFile=, and must mean the same there."""
    (entry,) = parse(line).values()
    assert (entry.systemd_reading is not None) is differs
