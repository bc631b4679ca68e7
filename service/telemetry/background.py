"""Tasks that run as long as the service does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from service.telemetry.logs import log

PAUSE_S = 1.0


async def supervised(name: str, work: Callable[[], Awaitable[None]], failed: Callable[[str], object]) -> None:
    """Run `work`, and restart it after a pause whenever it fails.

    failed: called with the name at each failure, to count it.
    """
    while True:
        try:
            await work()
            return
        except Exception as error:
            log.error("background task failed", task=name, error=type(error).__name__, exc_info=error)
            failed(name)
            await asyncio.sleep(PAUSE_S)
