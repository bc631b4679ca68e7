"""A client that hangs up cancels its work: FastAPI itself lets a handler run on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientDisconnected(Exception):
    """Nobody is there to read an answer."""


async def race_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises; cancels it and raises `ClientDisconnected` if the client leaves first.

    The body must have been read: the next message of `receive` is then the disconnect.
    """
    at_work = asyncio.current_task()
    assert at_work is not None
    left = False

    async def listen() -> None:
        nonlocal left
        with suppress(Exception):  # a broken connection counts as leaving
            while (await receive())["type"] != "http.disconnect":
                pass
        left = True
        at_work.cancel()

    listener = asyncio.create_task(listen())
    try:
        return await work
    except asyncio.CancelledError:
        if left and not at_work.uncancel():
            raise ClientDisconnected from None
        raise
    finally:
        listener.cancel()  # and not waited for: the answer need not
