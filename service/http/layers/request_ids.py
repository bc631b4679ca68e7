"""Ids for requests that come without one."""

from __future__ import annotations

import random
import secrets

# `secrets` for each id would call the kernel and then wait for the interpreter's lock, which worker threads
# hold. Ids must be unique, but may be easy to guess.
_random = random.Random(secrets.randbits(256))


def new_request_id() -> str:
    """32 hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"
