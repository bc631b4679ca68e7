"""The service under load: how much it answers, how long that takes, and what its cores do meanwhile."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat

from tests.bench.figures import SERVED_ROUNDS, Figure, Unmeasured, ratios, spread
from tests.bench.load import Outcome, Request, arrivals, callers, post
from tests.bench.photos import photo
from tests.bench.process import cpu_time, started_on
from tests.conftest import encoded
from tests.system.conftest import running

SECONDS = 4.0  # of closed loop in each round
OPEN_SECONDS = 6.0
SHARES = (0.3, 0.5, 0.7, 0.9)  # of saturation, at which requests arrive
FEW, MANY = 8, 64


def open_name(share: float, what: str) -> str:
    return f"open loop at {share:.0%} of saturation, {what}"


def throughput() -> Iterator[Figure | Unmeasured]:
    """640x480, one face."""
    jpeg = encoded(photo(640, 480))
    with running(max_in_flight_requests=256) as gateway:
        pid, request = gateway.process.pid, post(f"{gateway.url}/v1/emotions", jpeg)
        callers(FEW, repeat(request, 10 * FEW))
        few, many, loop_shares, cpu_ms, asking = [], [], [], [], []
        for _ in range(SERVED_ROUNDS):
            before, images = cpu_time(pid), gateway.metric("expressnet_faces_per_image_count")
            few.append(callers(FEW, repeat(request), SECONDS))
            after = cpu_time(pid)
            images = gateway.metric("expressnet_faces_per_image_count") - images
            loop_shares.append(100 * (after.loop_s - before.loop_s) / (after.all_s - before.all_s))
            cpu_ms.append(1e3 * (after.all_s - before.all_s) / images)
            asking.append(few[-1].asking_cpu_s / few[-1].seconds)
            many.append(callers(MANY, repeat(request), SECONDS))
        note = f"{_errors(few)}; asking took {statistics.median(asking):.1%} of a core"
        yield spread(f"closed loop, {FEW} callers", "images/s", [load.per_s for load in few], note)
        yield spread(f"closed loop, {MANY} callers", "images/s", [load.per_s for load in many], _errors(many))
        yield ratios(
            f"{MANY} callers over {FEW}", [load.per_s for load in many], [load.per_s for load in few]
        )
        yield spread("gateway's CPU time per image", "ms", cpu_ms, f"all threads, {FEW} callers")
        yield spread(
            "machinery's share of the gateway's CPU time",
            "%",
            loop_shares,
            f"threads of event loops over all threads, {FEW} callers",
        )
        yield from _open(request, statistics.median(load.per_s for load in few))
    yield from _cores(jpeg)


def _open(request: Request, saturation_per_s: float) -> Iterator[Figure]:
    rounds = [
        {share: arrivals(repeat(request), share * saturation_per_s, OPEN_SECONDS) for share in SHARES}
        for _ in range(SERVED_ROUNDS)
    ]
    for share in SHARES:
        loads = [each[share] for each in rounds]
        medians = [load.latency_ms(0.5) for load in loads]
        tails = [load.latency_ms(0.99) for load in loads]
        rate = f"{share * saturation_per_s:.1f} images/s"
        yield spread(open_name(share, "p50"), "ms", medians, f"{rate}; {_errors(loads)}")
        yield spread(
            open_name(share, "p99"),
            "ms",
            tails,
            f"of {round(share * saturation_per_s * OPEN_SECONDS)} a round",
        )
        yield ratios(open_name(share, "p99 over p50"), tails, medians)


def _cores(jpeg: bytes) -> Iterator[Figure | Unmeasured]:
    """The load comes from the cores that the gateway leaves, if there are any."""
    cores = sorted(os.sched_getaffinity(0))
    name = "images/s of 2 cores over 1"
    if len(cores) < 2:
        yield Unmeasured(name, "there is only one core")
        return
    with ExitStack() as stack:
        served = {}
        for count in (1, 2):
            with started_on(set(cores[:count])):
                gateway = stack.enter_context(running(worker_threads=count, max_in_flight_requests=256))
            served[count] = post(f"{gateway.url}/v1/emotions", jpeg)
            callers(FEW, repeat(served[count], 5 * FEW))
        loads: dict[int, list[Outcome]] = {count: [] for count in served}
        for _ in range(SERVED_ROUNDS):
            for count, request in served.items():
                with started_on(set(cores[count:]) or set(cores)):
                    loads[count].append(callers(FEW, repeat(request), SECONDS))
    rates = {count: [load.per_s for load in of_count] for count, of_count in loads.items()}
    for count in served:
        asking = "asked from another core" if len(cores) > count else "asking shares the cores"
        yield spread(f"gateway on {count} core{'s' * (count > 1)}", "images/s", rates[count], asking)
    yield ratios(name, rates[2], rates[1], f"{FEW} callers")


def _errors(loads: list[Outcome]) -> str:
    """The errors of all rounds by kind, such as "3 x 429"."""
    kinds = sum((load.errors for load in loads), start=type(loads[0].errors)())
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common()) or "no errors"
