"""Names for requests that bring none."""

from __future__ import annotations

import random
import secrets

# Not `secrets` for each: it waits for the kernel, and then for the interpreter's lock, which the threads that
# work on images take meanwhile. Ids have to differ, and need not be hard to guess.
_random = random.Random(secrets.randbits(256))


def new_request_id() -> str:
    """32 hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"
