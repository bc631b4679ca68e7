"""The command line: `expressnet`."""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

from service import __version__

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
    from service.errors import ModelFileError
    from service.server import serve
    from service.settings import SettingsError, read_settings

    try:
        serve(read_settings())
    except (SettingsError, ModelFileError) as error:
        typer.echo(f"expressnet: {error}", err=True)
        raise SystemExit(2) from None


def main() -> None:
    """Run the command line, with the commands of whatever else is installed beside the gateway."""
    for commands in entry_points(group="expressnet.commands"):
        app.add_typer(commands.load())
    app()
