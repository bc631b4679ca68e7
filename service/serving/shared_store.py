"""The store of a service with several processes: the supervisor keeps it, each process has a link."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from service.core.errors import StoreUnavailable
from service.serving.link import Link
from service.state.store import Store

ANSWER_S = 2.0


class SharedStore:
    """The serving process's end."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def read(self, key: str) -> dict[str, bytes]:
        fields: dict[str, str] = await self._ask("read", key)
        return {name: b64decode(text) for name, text in fields.items()}

    async def write(self, key: str, fields: Mapping[str, bytes], ttl_s: float) -> None:
        await self._ask("write", key, _texts(fields), ttl_s)

    async def add(self, key: str, amounts: Mapping[str, int], ttl_s: float) -> bool:
        return bool(await self._ask("add", key, dict(amounts), ttl_s))

    async def delete(self, key: str) -> None:
        await self._ask("delete", key)

    async def close(self) -> None:
        pass

    async def _ask(self, *call: Any) -> Any:
        try:
            answer = await self._link.ask(ANSWER_S, store=call)
        except TimeoutError:
            raise StoreUnavailable("the store of jobs and sessions does not answer") from None
        if "refused" in answer:
            raise StoreUnavailable(answer["refused"])
        return answer["found"]


async def answer(store: Store, call: list[Any]) -> dict[str, Any]:
    """The supervisor's end: what a process gets for its call."""
    found: object = None
    try:
        match call:
            case ["read", key]:
                found = _texts(await store.read(key))
            case ["write", key, fields, ttl_s]:
                await store.write(key, {name: b64decode(text) for name, text in fields.items()}, ttl_s)
            case ["add", key, amounts, ttl_s]:
                found = await store.add(key, amounts, ttl_s)
            case ["delete", key]:
                await store.delete(key)
    except StoreUnavailable as error:
        return {"refused": error.detail}
    return {"found": found}


def _texts(fields: Mapping[str, bytes]) -> dict[str, str]:
    return {name: b64encode(value).decode() for name, value in fields.items()}
