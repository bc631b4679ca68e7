"""A client that hangs up cancels its work: FastAPI itself lets a handler run on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientDisconnected(Exception):
    """Nobody is there to read an answer."""


async def race_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises; cancels it and raises `ClientDisconnected` if the client leaves first.

    The body must have been read: the next message of `receive` is then the disconnect.
    """
    task = asyncio.create_task(work)
    listener = asyncio.create_task(_until_disconnect(receive))
    try:
        await asyncio.wait({task, listener}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnected
    finally:
        listener.cancel()
        task.cancel()
        # The work must be over, its slots given back, before the request counts as done.
        await asyncio.gather(task, listener, return_exceptions=True)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
