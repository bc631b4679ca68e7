"""How much a caller may send: `600/minute`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

WINDOWS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
PATTERN = rf"^[1-9][0-9]{{0,8}}/({'|'.join(WINDOWS_S)})$"


class Rate(NamedTuple):
    """So many images in each window."""

    images: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Raises `ValueError` if the text is not like `600/minute`."""
        if not re.fullmatch(PATTERN, text):
            raise ValueError(f"a rate is written like 600/minute, per {', '.join(WINDOWS_S)}")
        images, _, window = text.partition("/")
        return cls(int(images), WINDOWS_S[window])


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose rate it is: a key's name, or an address."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Spent:
    """Whether the images were within the rate.

    remaining: images that the caller may still send; reset_s: seconds until more are available.
    """

    allowed: bool
    remaining: int
    reset_s: int
