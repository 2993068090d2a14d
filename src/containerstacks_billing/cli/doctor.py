"""`doctor`: diagnosis of machine, configuration and database, one line per check."""

from __future__ import annotations

from pathlib import Path

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import all_flags, app
from containerstacks_billing.errors import EXIT_FAILED

_EXAMPLES = """
\b
Examples:
  containerstacks-billing doctor
  containerstacks-billing --env-file /root/containerstacks/.env doctor
  containerstacks-billing doctor --json
  containerstacks-billing doctor --report report.tar.gz
"""

_COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


@app.command(epilog=_EXAMPLES)
@click.option("--ping", "with_signal", is_flag=True, help="Also send a GET to HEARTBEAT_URL.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write a tarball for support.",
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, with_signal: bool, report: Path | None, as_json: bool) -> None:
    """Check machine, configuration and database; say what to do.

    Nothing is changed. Exits 1 when a check fails; warnings exit 0. --report writes findings, configuration,
    versions, last runs and query plans, with passwords and tokens masked.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.doctor import Level, examine
    from containerstacks_billing.redaction import redact

    console = render.stdout()
    findings = []
    for finding in examine(all_flags(ctx), with_signal=with_signal):
        findings.append(finding)
        if as_json:
            continue
        console.print(f"{finding.level:<5}", style=_COLOURS[finding.level], end="")
        console.print(render.printable(redact(f"{finding.check}: {finding.message}")), soft_wrap=True)
        for line in redact(finding.hint or "").splitlines():
            console.print(f"       {render.printable(line)}", soft_wrap=True)
    failed = sum(finding.level is Level.FAIL for finding in findings)
    warned = sum(finding.level is Level.WARN for finding in findings)
    if as_json:
        render.emit_json(
            {
                "ok": not failed,
                "findings": [
                    {
                        "check": finding.check,
                        "level": finding.level,
                        "message": redact(finding.message),
                        "hint": redact(finding.hint) if finding.hint else None,
                    }
                    for finding in findings
                ],
            }
        )
    else:
        console.print(f"\n{len(findings)} checks: {failed} failed, {warned} to look at.")
    if report is not None:
        from containerstacks_billing.doctor.report import write_report

        names = write_report(report, all_flags(ctx), findings)
        render.stderr().print(
            f"Wrote {report}: {', '.join(names)}. Passwords and tokens are masked; read it before you send it.",
            soft_wrap=True,
        )
    if failed:
        ctx.exit(EXIT_FAILED)
