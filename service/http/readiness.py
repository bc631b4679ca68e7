"""Whether this process is ready for requests, and the probe of its engines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.inference.engine import Engine
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

PROBE_INTERVAL_S = 0.5
PROBE_TIMEOUT_S = 1.0
UP, DOWN = "up", "down"


@dataclass(slots=True)
class Readiness:
    """A full queue does not make the service unready: it answers with `overloaded`."""

    warmed_up: bool = False
    draining: bool = False
    engines: dict[str, str] = field(default_factory=dict)
    """By name: `up`, `down`, or the state of a circuit breaker that is not closed."""

    @property
    def ready(self) -> bool:
        return self.warmed_up and not self.draining and all(state == UP for state in self.engines.values())

    def drain(self) -> None:
        self.draining = True


async def probe(engines: Mapping[str, Engine], readiness: Readiness, metrics: Metrics) -> None:
    """Ask every engine again and again; `/readyz` reads the last results."""
    while True:
        await asyncio.sleep(PROBE_INTERVAL_S)
        await probe_once(engines, readiness, metrics)


async def probe_once(engines: Mapping[str, Engine], readiness: Readiness, metrics: Metrics) -> None:
    """Ask every engine whether it can answer, for at most `PROBE_TIMEOUT_S`."""

    async def ask(name: str, engine: Engine) -> None:
        state = UP
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await engine.ping()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # After any exception the engine is down, and the probe must continue.
            state = DOWN
            if readiness.engines.get(name) != DOWN:
                log.warning(
                    "engine down",
                    engine=name,
                    error=type(error).__name__,
                    detail=str(error.__cause__ or error),
                )
        if state == UP and engine.circuit not in (None, "closed"):
            state = f"circuit {engine.circuit}"
        readiness.engines[name] = state
        metrics.engine_up.labels(name).set(state == UP)

    # Together: an engine that hangs must not delay the result of the other.
    await asyncio.gather(*(ask(name, engine) for name, engine in engines.items()))
