"""The command line: `expressnet`."""

from __future__ import annotations

import signal
from importlib.metadata import entry_points

import typer

from service import __version__
from service.cli.check import check_command
from service.cli.keys import keys_app
from service.cli.models import models_command
from service.cli.predict import predict_command
from service.cli.report import report_command
from service.cli.serve import serve_command

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


app.command("predict")(predict_command)
app.command("report")(report_command)
app.command("serve")(serve_command)
app.command("check")(check_command)
app.command("models")(models_command)
app.add_typer(keys_app, name="keys")


def main() -> None:
    """Run the command line, with the commands of other installed packages."""
    try:
        for commands in entry_points(group="expressnet.commands"):
            app.add_typer(commands.load())
        app()
    finally:
        # What follows cannot be interrupted in a useful way, so Ctrl-C must not print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
