"""`expressnet check`: finds what would keep the gateway from serving, and says how to fix it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.cli.diagnosis import Finding

COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "error": typer.colors.RED}


def check_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the settings, the machine and the models, and say how to fix what is wrong.

    Exit codes: 0 if all is well or after warnings, 1 after an error.
    """
    findings = asyncio.run(_findings(tell=not as_json))
    ok = all(finding.state != "error" for finding in findings)
    if as_json:
        content = {"ok": ok, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(content, indent=2))
    if not ok:
        raise SystemExit(1)


async def _findings(tell: bool) -> list[Finding]:
    # Imported late: `--help` and completions must not wait for it.
    from service.cli.diagnosis import diagnose
    from service.telemetry.logs import configure_logs

    # Warnings of the engine are reported as findings.
    configure_logs("error", "text")
    findings = []
    async for finding in diagnose():
        findings.append(finding)
        if tell:
            _print(finding)
    return findings


def _print(finding: Finding) -> None:
    state = typer.style(f"{finding.state:8}", COLOURS[finding.state])
    typer.echo(f"{state} {finding.check}: {finding.found}")
    if finding.fix is not None:
        typer.echo(f"{'':9}{finding.fix}")
