"""Cancels the work for a client that disconnects; FastAPI alone lets the handler finish."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

DISCONNECTED = "disconnected"
"""Key in a request's `scope["state"]` of a future that is done once the client has left."""


class ClientDisconnected(Exception):
    """The client left before its answer."""


async def race_disconnect(disconnected: asyncio.Future[None] | None, work: Coroutine[Any, Any, T]) -> T:
    """Return or raise what `work` does. If the client leaves first, cancel it and raise `ClientDisconnected`.

    disconnected: done once the client has left; None if the server cannot tell. Waiting for the disconnect
    message instead would take one more task per request.
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
