"""API keys: a TOML file of names, scopes and digests. The keys themselves are never stored."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.access.rates import PATTERN, Rate
from service.access.scopes import Scope
from service.core.errors import reason_of
from service.telemetry.logs import log

if TYPE_CHECKING:
    from service.telemetry.metrics import Metrics

# The prefix lets people and scanners for leaked secrets recognize a key. 256 random bits follow.
KEY_PREFIX = "xn_"
KEY_PATTERN = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{43}}")
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
REFRESH_INTERVAL_S = 1.0


class KeysFileError(Exception):
    """The keys file cannot be used. The message is one sentence with the reason, without any digest."""


class _Entry(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    rate: Annotated[str | None, Field(pattern=PATTERN)] = None
    expires: AwareDatetime | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the keys file: it has the digest of a key, not the key."""

    name: str
    digest: str
    scopes: frozenset[Scope]
    rate: Rate | None = None
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


def digest_of(secret: str) -> str:
    # A fast hash is enough: unlike passwords, 2^256 keys cannot be tried.
    return sha256(secret.encode()).hexdigest()


def parse_keys(text: str) -> list[Key]:
    """The entries of a file, in its order. Raises `KeysFileError` if any entry is invalid."""
    if not text.strip():
        # A truncated copy or a full disk must not remove all keys.
        raise KeysFileError("the file is empty")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise KeysFileError(f"not TOML: {error}") from None
    keys = [_key(name, table) for name, table in tables.items()]
    if len({key.digest for key in keys}) < len(keys):
        raise KeysFileError("two names have the same sha256")
    return keys


def check_name(name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise KeysFileError(f"{name[:64]!r} is not a valid name: use letters, digits, - and _, at most 64")


def _key(name: str, table: object) -> Key:
    check_name(name)
    try:
        entry = _Entry.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise KeysFileError(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    rate = Rate.parse(entry.rate) if entry.rate else None
    return Key(name, entry.sha256, frozenset(entry.scopes), rate, entry.expires)


class Keyring:
    """The keys of the last valid version of a file. Raises `KeysFileError` if the first read fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self._keys: dict[str, Key] = {}
        self.refresh()

    def find(self, secret: str) -> Key | None:
        """The entry of the key that was sent, expired or not; None if unknown."""
        if not KEY_PATTERN.fullmatch(secret):
            return None
        # The search time may reveal a digest. This is harmless: a digest does not lead back to a key.
        return self._keys.get(digest_of(secret))

    def refresh(self) -> bool:
        """Read the file and return whether it changed. Raises `KeysFileError` and keeps the old keys."""
        # Compares the content, not the time of change: a mounted secret is a link to a link that is swapped.
        text = read_text(self._path)
        if text == self._text:
            return False
        self._keys = {key.digest: key for key in parse_keys(text)}
        self._text = text
        return True

    def __len__(self) -> int:
        return len(self._keys)


async def watch(keyring: Keyring, metrics: Metrics) -> None:
    """Read the file again and again. If it is broken or missing, report this and keep the old keys."""
    reported = ""
    while True:
        await asyncio.sleep(REFRESH_INTERVAL_S)
        try:
            # On a thread: a network file system that hangs must not delay requests.
            if await asyncio.to_thread(keyring.refresh):
                log.info("keys changed", keys=len(keyring))
            reported = ""
        except Exception as error:
            # No error may end the watch: otherwise a removed key would stay valid.
            if str(error) != reported:
                reported = str(error) or type(error).__name__
                log.error("keys file cannot be used, the last good keys stay", detail=reported)
        metrics.keys_file_valid.set(not reported)


def read_keys(path: Path) -> list[Key]:
    """Raises `KeysFileError`."""
    return parse_keys(read_text(path))


@contextmanager
def as_keys_file_error() -> Iterator[None]:
    """Turn an `OSError` into a `KeysFileError`."""
    try:
        yield
    except OSError as error:
        raise KeysFileError(reason_of(error)) from None


def read_text(path: Path) -> str:
    """Raises `KeysFileError`."""
    try:
        with as_keys_file_error():
            # Editors of some systems write a byte order mark, which is not TOML.
            return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KeysFileError("not UTF-8") from None
