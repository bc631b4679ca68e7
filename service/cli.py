"""The command line: `expressnet`."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from service import __version__
from service.errors import ModelFileError

app = typer.Typer(
    name="expressnet",
    help="One photo in, the emotions of every face out.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.callback(invoke_without_command=True)
def options(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command("serve")
def serve_command() -> None:
    """Start the gateway. Settings come from the environment: see docs/settings.md."""
    from service.server import serve
    from service.settings import SettingsError, read_settings

    try:
        serve(read_settings())
    except (SettingsError, ModelFileError) as error:
        typer.echo(f"expressnet: {error}", err=True)
        raise SystemExit(2) from None


@app.command("models")
def models_command(
    repository: Annotated[Path, typer.Option(help="Model repository in Triton's layout.")] = Path(
        "model_repository"
    ),
) -> None:
    """List the models of a repository and verify their files; exit 1 if one is not as its manifest says."""
    from service.manifest import survey

    sound = True
    try:
        models = survey(repository)
    except ModelFileError as error:
        typer.echo(f"expressnet: {error}", err=True)
        raise SystemExit(1) from None
    for name, found in models:
        if isinstance(found, ModelFileError):
            sound = False
            typer.echo(f"{name}: {found}", err=True)
        else:
            typer.echo(f"{name} {found.version}: {found.kind}, sha256 {found.sha256[:12]}, verified")
    if not sound:
        raise SystemExit(1)


def main() -> None:
    """Run the command line, with the commands of whatever else is installed beside the gateway."""
    for commands in entry_points(group="expressnet.commands"):
        app.add_typer(commands.load())
    app()
