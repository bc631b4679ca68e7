"""`expressnet check`: is all there that serving needs, and if not, how to mend it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.cli.diagnosis import Finding

COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "wrong": typer.colors.RED}


def check_command(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Look at all that serving needs, and let the models answer; exit 1 if something is wrong."""
    findings = asyncio.run(_findings(tell=not as_json))
    sound = all(finding.state != "wrong" for finding in findings)
    if as_json:
        content = {"sound": sound, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(content, indent=2))
    if not sound:
        raise SystemExit(1)


async def _findings(tell: bool) -> list[Finding]:
    # Imported late: `--help` and completions must not wait for it.
    from service.cli.diagnosis import diagnose
    from service.telemetry.logs import configure_logs

    # The engine's own complaints are told as findings.
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
    if finding.mend is not None:
        typer.echo(f"{'':9}{finding.mend}")
