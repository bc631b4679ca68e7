"""`expressnet keys`: create, list and revoke API keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from service.access.scopes import Scope

keys_app = typer.Typer(help="Create, list and revoke the API keys of a file.")

KeysFile = Annotated[Path, typer.Option("--file", envvar="EXPRESSNET_KEYS_FILE", help="The keys file.")]


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    from service.access.keys import KeysFileError

    try:
        yield
    except KeysFileError as error:
        typer.echo(f"expressnet: {file}: {error}", err=True)
        raise SystemExit(1) from None


@keys_app.command("new")
def new_key_command(
    name: Annotated[str, typer.Argument(help="Name of the key: letters, digits, - and _.")],
    scope: Annotated[
        list[Scope], typer.Option(help="Scope of the key. Repeat the option for several scopes.")
    ],
    rate: Annotated[str | None, typer.Option(help="Rate of images for this key, like 100/minute.")] = None,
    expires: Annotated[
        datetime | None, typer.Option(help="Day on which the key expires (UTC).", formats=["%Y-%m-%d"])
    ] = None,
    file: KeysFile = Path("keys.toml"),
) -> None:
    """Create a key, print it once, and add its digest to the file."""
    from service.access.keys_file import add_key

    with _refusing(file):
        typer.echo(add_key(file, name, scope, rate, expires.replace(tzinfo=UTC) if expires else None))


@keys_app.command("list")
def list_keys_command(file: KeysFile = Path("keys.toml")) -> None:
    """List the name, scopes, rate and expiry of every key."""
    from service.access.keys import read_keys

    with _refusing(file):
        for key in read_keys(file):
            rate = f", {key.rate.images} images in {key.rate.window_s} s" if key.rate else ""
            end = (
                f", {'expired' if key.expired else 'expires'} {key.expires:%Y-%m-%d %H:%M %Z}"
                if key.expires
                else ""
            )
            typer.echo(f"{key.name}: {', '.join(sorted(key.scopes))}{rate}{end}")


@keys_app.command("revoke")
def revoke_key_command(
    name: Annotated[str, typer.Argument(help="Name of the key.")], file: KeysFile = Path("keys.toml")
) -> None:
    """Remove a key from the file. Running gateways refuse the key within about a second."""
    from service.access.keys_file import remove_key

    with _refusing(file):
        remove_key(file, name)
