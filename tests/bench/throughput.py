"""The service under load: its rate, its latency and its CPU time."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat

from tests.bench.figures import SERVED_ROUNDS, Figure, Unmeasured, ratios, summary
from tests.bench.load import Outcome, Request, arrivals, callers, errors_of, post
from tests.bench.photos import photo
from tests.bench.process import cpu_time, started_on
from tests.conftest import encoded
from tests.system.conftest import Process, running

SECONDS = 4.0  # of closed loop in each round
OPEN_SECONDS = 6.0  # of open loop in each round
SHARES = (0.3, 0.5, 0.7, 0.9)  # arrival rates of the open loop, over saturation
FEW, MANY = 8, 64
IMAGES = "expressnet_faces_per_image_count"


def open_loop_name(share: float, what: str) -> str:
    return f"open loop at {share:.0%} of saturation, {what}"


@dataclass(frozen=True)
class Round:
    """Loads, one right after the other, so that a slow minute changes their ratios little."""

    few: Outcome
    many: Outcome
    open_loops: dict[float, Outcome]  # by arrival rate over the rate of `few`
    loop_share: float  # event loops' part of the gateway's CPU time
    cpu_ms: float  # CPU time of the gateway per image


def throughput() -> Iterator[Figure]:
    """640x480, one face."""
    jpeg = encoded(photo(640, 480))
    with running(max_in_flight_requests=256, max_images_per_worker=1000) as gateway:
        request = post(f"{gateway.url}/v1/emotions", jpeg)
        callers(FEW, repeat(request, 10 * FEW))
        rounds = [_round(gateway, request) for _ in range(SERVED_ROUNDS)]
    few, many = [each.few for each in rounds], [each.many for each in rounds]
    rates = [load.per_s for load in few]
    client = statistics.median(load.client_cpu_s / load.seconds for load in few)
    yield summary(
        f"closed loop, {FEW} callers",
        "images/s",
        rates,
        f"{errors_of(few)}; the client took {client:.1%} of a core",
    )
    yield summary(f"closed loop, {MANY} callers", "images/s", [load.per_s for load in many], errors_of(many))
    yield ratios(f"{MANY} callers over {FEW}", [load.per_s for load in many], rates)
    yield summary(
        "gateway's CPU time per image",
        "ms",
        [each.cpu_ms for each in rounds],
        f"all threads, {FEW} callers",
    )
    yield summary(
        "overhead's share of the gateway's CPU time",
        "%",
        [100 * each.loop_share for each in rounds],
        f"threads of event loops over all threads, {FEW} callers",
    )
    for share in SHARES:
        yield from _open_loop(share, [each.open_loops[share] for each in rounds])


def _round(gateway: Process, request: Request) -> Round:
    pid = gateway.process.pid
    before, images = cpu_time(pid), gateway.metric(IMAGES)
    few = callers(FEW, repeat(request), SECONDS)
    after, images = cpu_time(pid), gateway.metric(IMAGES) - images
    return Round(
        few,
        callers(MANY, repeat(request), SECONDS),
        {share: arrivals(repeat(request), share * few.per_s, OPEN_SECONDS) for share in SHARES},
        (after.loop_s - before.loop_s) / (after.all_s - before.all_s),
        1e3 * (after.all_s - before.all_s) / images,
    )


def _open_loop(share: float, loads: list[Outcome]) -> Iterator[Figure]:
    medians = [load.latency_ms(0.5) for load in loads]
    tails = [load.latency_ms(0.99) for load in loads]
    answers = statistics.median(len(load.answers) for load in loads)
    rate = f"{answers / OPEN_SECONDS:.1f} images/s"
    yield summary(open_loop_name(share, "p50"), "ms", medians, f"{rate}; {errors_of(loads)}")
    yield summary(open_loop_name(share, "p99"), "ms", tails, f"{answers:.0f} answers in each round")
    yield ratios(open_loop_name(share, "p99 over p50"), tails, medians)


def scaling() -> Iterator[Figure | Unmeasured]:
    """One core and two. The client runs on the other cores, or on all cores if the gateway has all."""
    cores = sorted(os.sched_getaffinity(0))
    jpeg = encoded(photo(640, 480))
    name = "images/s of 2 cores over 1"
    if len(cores) < 2:
        yield Unmeasured(name, "this machine has only one core")
        return
    with ExitStack() as stack:
        served = {}
        for count in (1, 2):
            with started_on(set(cores[:count])):
                gateway = stack.enter_context(
                    running(worker_threads=count, max_in_flight_requests=256, max_images_per_worker=1000)
                )
            served[count] = post(f"{gateway.url}/v1/emotions", jpeg)
            callers(FEW, repeat(served[count], 5 * FEW))
        loads: dict[int, list[Outcome]] = {count: [] for count in served}
        for _ in range(SERVED_ROUNDS):
            for count, request in served.items():
                with started_on(set(cores[count:]) or set(cores)):
                    loads[count].append(callers(FEW, repeat(request), SECONDS))
    rates = {count: [load.per_s for load in loads_of_count] for count, loads_of_count in loads.items()}
    for count in served:
        note = "client on another core" if len(cores) > count else "client on the same cores"
        yield summary(f"gateway on {count} core{'s' * (count > 1)}", "images/s", rates[count], note)
    yield ratios(name, rates[2], rates[1], f"{FEW} callers")
