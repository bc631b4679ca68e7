"""Sessions: counts of what was seen of each participant, by bin of time. They live in the store."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from service.core.errors import NotFound
from service.core.seen import Outcome
from service.state.store import Store

ID = re.compile(r"[0-9a-f]{32}")
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Session:
    """owner: the name of the caller's key, or empty. started_s, ttl_s: seconds; the former since 1970.

    min_participants: the report has groups only, of at least so many participants. secret: for their lots.
    """

    owner: str
    name: str
    bin_minutes: int
    ttl_s: int
    min_participants: int | None
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    started_s: float = field(default_factory=time.time)

    @property
    def bin_s(self) -> float:
        return self.bin_minutes * MINUTE_S

    @property
    def expires_s(self) -> float:
        return self.started_s + self.ttl_s


@dataclass(slots=True)
class Tally:
    """The images of one participant in one bin: how many had each emotion, and how many had none."""

    emotions: dict[str, int] = field(default_factory=dict)
    certain: int = 0
    unreadable: int = 0
    absent: int = 0

    @property
    def readable(self) -> int:
        return sum(self.emotions.values())

    @property
    def images(self) -> int:
        return self.readable + self.unreadable + self.absent

    def add(self, other: Tally) -> None:
        for emotion, count in other.emotions.items():
            self.emotions[emotion] = self.emotions.get(emotion, 0) + count
        self.certain += other.certain
        self.unreadable += other.unreadable
        self.absent += other.absent


Tallies = Mapping[int, Mapping[str, Tally]]
"""By bin, then by participant."""


class Sessions:
    """Methods raise `StoreUnavailable`. now: seconds since 1970, the same for all gateways."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self.now = now

    async def add(self, session: Session) -> None:
        # Every write has the time that remains: a session does not live longer when it is used.
        await self._store.write(_counts(session.id), {"": b"0"}, self._remaining_s(session))
        text = json.dumps(asdict(session)).encode()
        await self._store.write(_session(session.id), {"session": text}, self._remaining_s(session))

    async def find(self, owner: str, id: str) -> Session:
        """Raises `NotFound` if the session is unknown, expired or another caller's."""
        found = await self._store.read(_session(id)) if ID.fullmatch(id) else {}
        session = Session(**json.loads(found["session"])) if found else None
        if session is None or session.owner != owner:
            raise _missing()
        return session

    async def count(self, session: Session, participant: str, outcome: Outcome) -> None:
        """Count an image of a participant. Raises `NotFound` once the session has ended."""
        if outcome.emotion is None:
            names = ["unreadable" if outcome.face else "absent"]
        else:
            names = [f"emotion.{outcome.emotion}", *(["certain"] if outcome.certain else [])]
        bin_number = math.floor((self.now() - session.started_s) / session.bin_s)
        amounts = {f"{bin_number}:{name}:{participant}": 1 for name in names}
        if not await self._store.add(_counts(session.id), amounts, self._remaining_s(session)):
            raise _missing()

    async def tallies(self, session: Session) -> Tallies:
        return parsed(await self._store.read(_counts(session.id)))

    async def delete(self, session: Session) -> None:
        await self._store.delete(_session(session.id))
        await self._store.delete(_counts(session.id))

    def _remaining_s(self, session: Session) -> float:
        remaining_s = session.expires_s - self.now()
        if remaining_s <= 0:
            raise _missing()
        return remaining_s


def parsed(fields: Mapping[str, bytes]) -> Tallies:
    """The counts of a session, as the store has them."""
    tallies: dict[int, dict[str, Tally]] = {}
    for name, value in fields.items():
        if not name:
            continue
        number, what, participant = name.split(":", 2)
        tally = tallies.setdefault(int(number), {}).setdefault(participant, Tally())
        emotion = what.removeprefix("emotion.")
        if emotion != what:
            tally.emotions[emotion] = int(value)
        else:
            setattr(tally, what, int(value))
    return tallies


def _missing() -> NotFound:
    return NotFound("there is no such session: it is unknown, deleted, expired, or of another key")


def _session(id: str) -> str:
    return f"session:{id}"


def _counts(id: str) -> str:
    return f"session:{id}:counts"
