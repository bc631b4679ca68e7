"""`expressnet serve`: the gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from service.core.errors import ModelFileError


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Overrides EXPRESSNET_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on. Overrides EXPRESSNET_PORT.")
    ] = None,
) -> None:
    """Start the gateway. All other settings are environment variables: docs/reference/settings.md.

    Exit codes: 0 after SIGTERM or Ctrl-C, 2 if the gateway cannot start.
    """
    from service.access.keys import KeysFileError
    from service.core.errors import SettingsError
    from service.settings import read_settings

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        settings = read_settings(**given)
        if settings.processes > 1:
            from service.serving.supervisor import supervise

            raise SystemExit(supervise(settings))
        from service.serving.server import serve

        serve(settings)
    except (SettingsError, ModelFileError, KeysFileError) as error:
        typer.echo(f"expressnet: {error}", err=True)
        raise SystemExit(2) from None
