"""Three times as many photos as the service can answer.

Measures goodput, the latency of admitted requests and the time to a refusal.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from tests.bench.figures import SERVED_ROUNDS, Figure, ratios, summary
from tests.bench.load import Answer, Outcome, Request, arrivals, callers, errors_of, latency_ms, post
from tests.bench.photos import photo
from tests.bench.process import cpu_time
from tests.conftest import encoded
from tests.system.conftest import Process, running

OVERLOAD_FACTOR = 3  # arrivals over saturation
CALLERS_PER_CORE = 4
SECONDS = 6.0  # of saturation in each round
LEAD_S, STEADY_S = 2.0, 8.0  # of overload in each round
MIN_GOODPUT, MAX_LATENCY_RATIO = 0.9, 2.0


@dataclass(frozen=True)
class Round:
    """Two loads, one right after the other, so that a slow minute changes their ratio little."""

    saturated: Outcome
    overloaded: Outcome
    client_share: float  # CPU time of the client over the time of the overload
    serving_share: float  # CPU time of the service over the time of the overload

    @property
    def began_s(self) -> float:
        first = min(self.overloaded.answers + self.overloaded.failures, key=lambda answer: answer.at_s)
        return first.at_s - first.latency_s

    def steady(self, answers: list[Answer]) -> list[Answer]:
        """The answers in the last `STEADY_S` of the overload."""
        begin = self.began_s + LEAD_S
        return [answer for answer in answers if begin <= answer.at_s < begin + STEADY_S]


def overload() -> Iterator[Figure]:
    """640x480, one face. The settings are the defaults."""
    caller_count = CALLERS_PER_CORE * len(os.sched_getaffinity(0))
    with running() as gateway:
        request = post(f"{gateway.url}/v1/emotions", encoded(photo(640, 480)))
        callers(caller_count, repeat(request, 10 * caller_count))
        rounds = [_round(gateway, request, caller_count) for _ in range(SERVED_ROUNDS)]
    saturated, overloaded = [each.saturated for each in rounds], [each.overloaded for each in rounds]
    rates = [load.per_s for load in saturated]
    errors = errors_of([*saturated, *overloaded])
    client, serving = (
        statistics.median(getattr(each, name) for each in rounds)
        for name in ("client_share", "serving_share")
    )
    yield summary(f"saturation, closed loop, {caller_count} callers", "images/s", rates)
    yield summary(
        f"{OVERLOAD_FACTOR} x saturation, open loop, answered",
        "images/s",
        [len(each.steady(each.overloaded.answers)) / STEADY_S for each in rounds],
        f"{errors}; the client took {client:.1%} of a core, the service {serving:.1%}",
    )
    yield ratios(
        "goodput",
        [len(each.steady(each.overloaded.answers)) / STEADY_S for each in rounds],
        rates,
        f"answered over saturation; should be at least {MIN_GOODPUT}",
    )
    tails = [load.latency_ms(0.99) for load in saturated]
    admitted = [latency_ms(each.steady(each.overloaded.answers), 0.99) for each in rounds]
    yield summary("saturation, p50", "ms", [load.latency_ms(0.5) for load in saturated])
    yield summary("saturation, p99", "ms", tails)
    yield summary(
        f"{OVERLOAD_FACTOR} x saturation, p50 of the admitted",
        "ms",
        [latency_ms(each.steady(each.overloaded.answers), 0.5) for each in rounds],
    )
    yield summary(f"{OVERLOAD_FACTOR} x saturation, p99 of the admitted", "ms", admitted)
    yield ratios(
        "p99 of the admitted over p99 at saturation",
        admitted,
        tails,
        f"should be at most {MAX_LATENCY_RATIO}",
    )
    with_lead = [load.latency_ms(0.99) for load in overloaded]
    yield ratios("the same ratio with the first two seconds", with_lead, tails)
    for share in (0.5, 0.99):
        refused = [latency_ms(each.steady(each.overloaded.failures), share) for each in rounds]
        yield summary(f"time to a refusal, p{share * 100:.0f}", "ms", refused)


def _round(gateway: Process, request: Request, caller_count: int) -> Round:
    saturated = callers(caller_count, repeat(request), SECONDS)
    before = cpu_time(gateway.process.pid)
    overloaded = arrivals(repeat(request), OVERLOAD_FACTOR * saturated.per_s, LEAD_S + STEADY_S)
    after = cpu_time(gateway.process.pid)
    seconds = overloaded.seconds
    return Round(
        saturated, overloaded, overloaded.client_cpu_s / seconds, (after.all_s - before.all_s) / seconds
    )
