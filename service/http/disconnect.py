"""A client that hangs up cancels its work: FastAPI itself lets a handler run on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

DISCONNECTED = "disconnected"
"""Where the server leaves a future in a request's `scope["state"]` that is done once its client has left."""


class ClientDisconnected(Exception):
    """Nobody is there to read an answer."""


async def race_disconnect(disconnected: asyncio.Future[None] | None, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises; cancels it and raises `ClientDisconnected` if the client leaves first.

    disconnected: done once the client has left; None where nobody can tell. To listen for the message that
    says so would take a task for each request.
    """
    if disconnected is None:
        return await work
    at_work = asyncio.current_task()
    assert at_work is not None
    over = False

    def stop(_: asyncio.Future[None]) -> None:
        if not over:
            at_work.cancel()

    disconnected.add_done_callback(stop)
    try:
        return await work
    except asyncio.CancelledError:
        if disconnected.done() and not at_work.uncancel():
            raise ClientDisconnected from None
        raise
    finally:
        over = True
        disconnected.remove_done_callback(stop)
