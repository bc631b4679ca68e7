"""Adds and removes entries of a keys file, and keeps everything else in the file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import tomlkit
from tomlkit.items import Comment, Table, Whitespace

from service.access.keys import (
    KEY_PREFIX,
    KeysFileError,
    as_keys_file_error,
    check_name,
    digest_of,
    parse_keys,
    read_text,
)
from service.access.scopes import Scope

HEADING = "# API keys: docs/guides/keys.md. This file holds only digests; the callers have the keys.\n"


def add_key(path: Path, name: str, scopes: list[Scope], rate: str | None, expires: datetime | None) -> str:
    """Add an entry for a new key and return the key. Raises `KeysFileError`."""
    check_name(name)
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    entry = tomlkit.table()
    entry["sha256"] = digest_of(secret)
    entry["scopes"] = sorted(set(scopes))
    if rate is not None:
        entry["rate"] = rate
    if expires is not None:
        entry["expires"] = expires.replace(microsecond=0)
    with _locked(path):
        text = read_text(path) if path.exists() else HEADING
        if any(key.name == name for key in parse_keys(text)):
            raise KeysFileError(f"there is a key named {name} already")
        document = tomlkit.parse(f"{text.rstrip()}\n\n")
        document[name] = entry
        _replace(path, document)
    return secret


def remove_key(path: Path, name: str) -> None:
    """Remove a key's entry from the file, and nothing else. Raises `KeysFileError`."""
    with _locked(path):
        text = read_text(path)
        if all(key.name != name for key in parse_keys(text)):
            raise KeysFileError(f"there is no key named {name}")
        document = tomlkit.parse(text)
        at = next(at for at, (key, _) in enumerate(document.body) if key is not None and key.key == name)
        after = _after_entry(document[name])
        document.remove(name)
        document.body[at] = (None, Whitespace(after))
        if not document.as_string().strip():
            document = tomlkit.parse(HEADING)
        _replace(path, document)


def _after_entry(entry: object) -> str:
    """Comments after an entry and an empty line. TOML has them in this entry; they may describe the next."""
    if not isinstance(entry, Table):
        return ""
    lines: list[str] = []
    for key, item in reversed(entry.value.body):
        if key is not None or not isinstance(item, Comment | Whitespace):
            break
        lines[:0] = item.as_string().splitlines(keepends=True)
    gap = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
    return "".join(lines[gap + 1 :])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclude other writers. The lock is on the folder, because the file itself is replaced."""
    with as_keys_file_error():
        folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        with as_keys_file_error():
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _replace(path: Path, document: tomlkit.TOMLDocument) -> None:
    """Replace the file atomically: a gateway may read it at any moment."""
    text = tomlkit.dumps(document)
    parse_keys(text)
    target = path.resolve()
    with as_keys_file_error():
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with open(handle, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, target)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
