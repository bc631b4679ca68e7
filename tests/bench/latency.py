"""The latency of one caller without other load, and the time of each stage."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np

from service.api.schemas import Include
from service.core.timings import STAGES
from tests.bench.bare import bare_server
from tests.bench.figures import SERVED_ROUNDS, Figure, ratios, summary
from tests.bench.load import Answer, Outcome, callers, post
from tests.bench.photos import LARGE, enlarged, montage, photo
from tests.conftest import encoded
from tests.system.conftest import Process, running

SECONDS = 3.0  # of each scene in each round, about
MIN_REQUESTS, WARM_UP_REQUESTS = 5, 10
INCLUDE_REPEATS = 20  # of each query in a round
BARE_BUSY_MS = 10.0  # about as long as a lone request: the longer a caller sleeps, the later it wakes up
CLIENT = "client"
SMALL = "640x480, 1 face"
LARGE_SAME, LARGE_FAR = (
    "{}x{}, ".format(*LARGE) + what for what in ("the same scene", "a face of 3.5 % of its height")
)


def latency() -> Iterator[Figure]:
    """The settings are the defaults."""
    scenes = {
        SMALL: photo(640, 480),
        "640x480, 8 faces": montage(640, 480),
        "1280x960, 1 face": photo(1280, 960),
        "1280x960, 8 faces": montage(1280, 960),
        LARGE_SAME: enlarged(photo(640, 480), *LARGE),
        LARGE_FAR: photo(*LARGE),
    }
    jpegs = {name: encoded(pixels) for name, pixels in scenes.items()}
    with running() as gateway, bare_server(BARE_BUSY_MS) as bare_url:
        counts = {
            name: requests_per_round(lone_requests(gateway.url, jpeg, WARM_UP_REQUESTS))
            for name, jpeg in jpegs.items()
        }
        rounds = [
            {name: lone_requests(gateway.url, jpeg, counts[name]) for name, jpeg in jpegs.items()}
            | {CLIENT: lone_requests(bare_url, jpegs[SMALL], counts[SMALL])}
            for _ in range(SERVED_ROUNDS)
        ]
        medians = {name: [loads[name].latency_ms(0.5) for loads in rounds] for name in jpegs}
        for name in jpegs:
            loads = [each[name] for each in rounds]
            yield summary(f"lone request {name}, p50", "ms", medians[name], faces_note(loads))
            yield summary(
                f"lone request {name}, p99",
                "ms",
                [load.latency_ms(0.99) for load in loads],
                f"{counts[name]} requests in each round",
            )
        for name in (LARGE_SAME, LARGE_FAR):
            yield ratios(f"{name}, over 640x480", medians[name], medians[SMALL])
        yield from _parts([each[SMALL] for each in rounds], [each[CLIENT] for each in rounds])
        yield from _include_costs(gateway, jpegs[SMALL])


def lone_requests(url: str, jpeg: bytes, count: int) -> Outcome:
    return callers(1, repeat(post(f"{url}/v1/emotions", jpeg), count))


def requests_per_round(warm_up: Outcome) -> int:
    """The number of requests that take about `SECONDS`."""
    return max(MIN_REQUESTS, round(SECONDS * 1e3 / warm_up.latency_ms(0.5)))


def faces_note(loads: list[Outcome]) -> str:
    """The number of faces in the answers, and the number of errors."""
    faces = {len(json.loads(answer.body)["faces"]) for load in loads for answer in load.answers[:1]}
    errors = sum(sum(load.errors.values()) for load in loads)
    return f"{', '.join(map(str, sorted(faces)))} found" + (f", {errors} errors" if errors else "")


def _parts(loads: list[Outcome], bare_loads: list[Outcome]) -> Iterator[Figure]:
    """The stages in `Server-Timing`. The rest of the latency is the client and the overhead."""
    name = f"lone request {SMALL}, "
    for stage in STAGES:
        medians = [statistics.median(answer.stages_ms[stage] for answer in load.answers) for load in loads]
        yield summary(name + stage, "ms", medians)
    client = [_median(load, _outside_stages_ms) for load in bare_loads]
    outside = [_median(load, _outside_stages_ms) for load in loads]
    rest = [
        _median(load, lambda answer: _outside_stages_ms(answer) + _queue_and_align_ms(answer))
        for load in loads
    ]
    yield summary(
        name + "client",
        "ms",
        client,
        "time of the client and the kernel, measured at a server that only keeps a core busy",
    )
    yield summary(
        name + "overhead",
        "ms",
        [all_ms - client_ms for all_ms, client_ms in zip(outside, client, strict=True)],
        "latency less the stages and the client: HTTP, checks, JSON, metrics, log",
    )
    yield summary(
        name + "all but decode, detect, classify and the client",
        "ms",
        [all_ms - client_ms for all_ms, client_ms in zip(rest, client, strict=True)],
        f"{statistics.median(rest):.2f} with the client",
    )


def _outside_stages_ms(answer: Answer) -> float:
    return answer.latency_s * 1e3 - sum(answer.stages_ms[stage] for stage in STAGES)


def _queue_and_align_ms(answer: Answer) -> float:
    return answer.stages_ms["queue"] + answer.stages_ms["align"]


def _median(load: Outcome, value: Callable[[Answer], float]) -> float:
    return statistics.median(value(answer) for answer in load.answers)


def _include_costs(gateway: Process, jpeg: bytes) -> Iterator[Figure]:
    """The extra latency of each `include`, compared with a request without `include` just before."""
    queries = ["", *(f"?include={part.value}" for part in Include)]
    requests = [post(f"{gateway.url}/v1/emotions{query}", jpeg) for query in queries]
    costs: dict[str, list[float]] = {part.value: [] for part in Include}
    for _ in range(SERVED_ROUNDS):
        load = callers(1, requests * INCLUDE_REPEATS)
        assert not load.errors, load.errors
        times = np.array([answer.latency_s * 1e3 for answer in load.answers]).reshape(INCLUDE_REPEATS, -1)
        for part, cost in zip(costs, np.median(times[:, 1:] - times[:, :1], axis=0), strict=True):
            costs[part].append(float(cost))
    for part, costs_of_part in costs.items():
        yield summary(f"include={part}", "ms", costs_of_part, "in addition to a request without include")
