"""Three times as many photos as can be answered: what still is, how late, and how soon others are told."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from tests.bench.figures import SERVED_ROUNDS, Figure, ratios, spread
from tests.bench.load import Answer, Outcome, Request, arrivals, callers, latency_ms, post
from tests.bench.photos import photo
from tests.bench.process import cpu_time
from tests.conftest import encoded
from tests.system.conftest import Process, running

TIMES = 3  # saturation
CALLERS_PER_CORE = 4
SECONDS = 6.0  # of saturation in each round
LEAD_S, STEADY_S = 2.0, 8.0  # of overload in each round
LEAST_GOODPUT, MOST_LATENCY = 0.9, 2.0


@dataclass(frozen=True)
class Round:
    """Neighbours in time, so that one can be divided by the other."""

    saturated: Outcome
    overloaded: Outcome
    client_share: float  # of a core, while overloaded
    serving_share: float

    @property
    def began_s(self) -> float:
        first = min(self.overloaded.answers + self.overloaded.failures, key=lambda answer: answer.at_s)
        return first.at_s - first.latency_s

    def steady(self, answers: list[Answer]) -> list[Answer]:
        """Those that came once the load had lasted for a while, and before it ended."""
        begin = self.began_s + LEAD_S
        return [answer for answer in answers if begin <= answer.at_s < begin + STEADY_S]


def overload() -> Iterator[Figure]:
    """640x480, one face, default settings."""
    few = CALLERS_PER_CORE * len(os.sched_getaffinity(0))
    with running() as gateway:
        request = post(f"{gateway.url}/v1/emotions", encoded(photo(640, 480)))
        callers(few, repeat(request, 10 * few))
        rounds = [_round(gateway, request, few) for _ in range(SERVED_ROUNDS)]
    saturated, overloaded = [each.saturated for each in rounds], [each.overloaded for each in rounds]
    rates = [load.per_s for load in saturated]
    kinds = sum((load.errors for load in [*saturated, *overloaded]), Counter[str]())
    told = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common()) or "no errors"
    client, serving = (
        statistics.median(getattr(each, name) for each in rounds)
        for name in ("client_share", "serving_share")
    )
    yield spread(f"saturation, closed loop, {few} callers", "images/s", rates)
    yield spread(
        f"{TIMES} x saturation, open loop, answered",
        "images/s",
        [len(each.steady(each.overloaded.answers)) / STEADY_S for each in rounds],
        f"{told}; the client took {client:.1%} of a core, the service {serving:.1%}",
    )
    yield ratios(
        "goodput",
        [len(each.steady(each.overloaded.answers)) / STEADY_S for each in rounds],
        rates,
        f"answered over saturation; at least {LEAST_GOODPUT} wanted",
    )
    tails = [load.latency_ms(0.99) for load in saturated]
    admitted = [latency_ms(each.steady(each.overloaded.answers), 0.99) for each in rounds]
    yield spread("saturation, p50", "ms", [load.latency_ms(0.5) for load in saturated])
    yield spread("saturation, p99", "ms", tails)
    yield spread(
        f"{TIMES} x saturation, p50 of the admitted",
        "ms",
        [latency_ms(each.steady(each.overloaded.answers), 0.5) for each in rounds],
    )
    yield spread(f"{TIMES} x saturation, p99 of the admitted", "ms", admitted)
    yield ratios(
        "p99 of the admitted over that at saturation", admitted, tails, f"at most {MOST_LATENCY} wanted"
    )
    whole = [load.latency_ms(0.99) for load in overloaded]
    yield ratios("the same with the first two seconds", whole, tails)
    for share in (0.5, 0.99):
        refused = [latency_ms(each.steady(each.overloaded.failures), share) for each in rounds]
        yield spread(f"time to a refusal, p{share * 100:.0f}", "ms", refused)


def _round(gateway: Process, request: Request, few: int) -> Round:
    saturated = callers(few, repeat(request), SECONDS)
    before = cpu_time(gateway.process.pid)
    overloaded = arrivals(repeat(request), TIMES * saturated.per_s, LEAD_S + STEADY_S)
    after = cpu_time(gateway.process.pid)
    seconds = overloaded.seconds
    return Round(
        saturated, overloaded, overloaded.client_cpu_s / seconds, (after.all_s - before.all_s) / seconds
    )
