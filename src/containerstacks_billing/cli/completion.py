"""Shell completion: the script that click generates for bash, zsh or fish, shown or installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_CONTAINERSTACKS_BILLING_COMPLETE"
# Per shell, below the home directory: the script, the file that the shell reads at its start, and the line for it.
_PLACES = {
    "bash": (".bash_completions/{name}.sh", ".bashrc", "source ~/.bash_completions/{name}.sh"),
    "zsh": (".zfunc/_{name}", ".zshrc", "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
    "fish": (".config/fish/completions/{name}.fish", None, ""),
}


def completion_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --install-completion and --show-completion."""
    install = click.option(
        "--install-completion", is_flag=True, is_eager=True, expose_value=False, callback=_install,
        help="Install completion for the current shell.",
    )  # fmt: skip
    show = click.option(
        "--show-completion", is_flag=True, is_eager=True, expose_value=False, callback=_show,
        help="Show completion for the current shell, to copy it or customize the installation.",
    )  # fmt: skip
    return install(show(command))


def _show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(_script(ctx, _current_shell()))
        ctx.exit()


def _install(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    shell, name = _current_shell(), str(ctx.info_name)
    place, started, line = _PLACES[shell]
    script = Path.home() / place.format(name=name)
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_script(ctx, shell) + "\n", encoding="utf-8")
    if started:
        _add_line(Path.home() / started, line.format(name=name))
    click.echo(f"{shell} completion installed in {script}.\nIt works in the next terminal that is opened.")
    ctx.exit()


def _add_line(file: Path, line: str) -> None:
    """Append a line unless the file has it."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if line not in text.splitlines():
        separator = "" if text.endswith("\n") or not text else "\n"
        with file.open("a", encoding="utf-8") as appended:
            appended.write(f"{separator}{line}\n")


def _script(ctx: click.Context, shell: str) -> str:
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click has the three of _PLACES
    return found(ctx.command, {}, str(ctx.info_name), _VARIABLE).source()


def _current_shell() -> str:
    """Return the shell that this process was started from, else that of $SHELL; raises WorkFailed for another."""
    parent = Path(f"/proc/{os.getppid()}/comm")
    names = [parent.read_text().strip() if parent.exists() else "", Path(os.environ.get("SHELL", "")).name]
    for name in names:
        if name in _PLACES:
            return name
    raise click.UsageError("completion is available for bash, zsh and fish, and this is none of them.")
