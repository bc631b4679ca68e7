"""`expressnet models`: lists the models of a repository, and verifies their files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.core.errors import ModelFileError

if TYPE_CHECKING:
    from service.core.manifest import Manifest


def models_command(
    repository: Annotated[
        Path | None, typer.Option(help="Model repository. Overrides EXPRESSNET_MODEL_REPOSITORY.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models of a repository and verify their files.

    Exit codes: 0 if all files match their manifests, 1 if one does not or no model is found.
    """
    from service.core.errors import SettingsError
    from service.core.manifest import survey
    from service.settings import read_settings

    given = {} if repository is None else {"model_repository": repository}
    try:
        models = survey(read_settings(**given).model_repository)
    except (SettingsError, ModelFileError) as error:
        typer.echo(f"expressnet: {error}", err=True)
        raise SystemExit(1) from None
    if as_json:
        typer.echo(json.dumps([_entry(name, found) for name, found in models], indent=2))
    elif sys.stdout.isatty():
        _print_table(models)
    else:
        _print_lines(models)
    if any(isinstance(found, ModelFileError) for _, found in models):
        raise SystemExit(1)


def _entry(name: str, found: Manifest | ModelFileError) -> dict[str, Any]:
    if isinstance(found, ModelFileError):
        return {"name": name, "verified": False, "error": str(found)}
    entry = {"name": name, "version": found.version, "kind": found.kind, "sha256": found.sha256}
    return {**entry, "labels": list(found.labels), "verified": True}


def _digests(found: Manifest) -> str:
    return ", ".join(f"{file} {digest[:12]}" for file, digest in sorted(found.sha256.items()))


def _print_lines(models: list[tuple[str, Manifest | ModelFileError]]) -> None:
    for name, found in models:
        if isinstance(found, ModelFileError):
            typer.echo(f"{name}: {found}", err=True)
        else:
            typer.echo(f"{name} {found.version}: {found.kind}, {_digests(found)}, verified")


def _print_table(models: list[tuple[str, Manifest | ModelFileError]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "version", "kind", "answers", "sha256", "files")
    for name, found in models:
        if isinstance(found, ModelFileError):
            table.add_row(name, "", "", "", "", f"[red]error[/]: {found}")
        else:
            answers = ", ".join(found.labels) or "faces"
            table.add_row(name, found.version, found.kind, answers, _digests(found), "[green]verified[/]")
    Console().print(table)
