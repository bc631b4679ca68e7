"""One caller that has the service to itself: how long a photo takes, and where that time goes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np

from service.api.schemas import Include
from service.core.timings import STAGES
from tests.bench.bare import bare
from tests.bench.figures import SERVED_ROUNDS, Figure, ratios, spread
from tests.bench.load import Answer, Outcome, callers, post
from tests.bench.photos import LARGE, enlarged, montage, photo
from tests.conftest import encoded
from tests.system.conftest import Process, running

SECONDS = 3.0  # of each scene in each round, about
LEAST, WARM_UP, INCLUDING = 5, 10, 20  # requests
ASKED_BARE_MS = 10.0  # about what a lone request takes: a caller that slept as long wakes as late
CLIENT = "client"
SMALL = "640x480, 1 face"
SAME, FAR = ("{}x{}, ".format(*LARGE) + what for what in ("the same scene", "a face of 3.5 % of its height"))


def latency() -> Iterator[Figure]:
    """With default settings."""
    scenes = {
        SMALL: photo(640, 480),
        "640x480, 8 faces": montage(640, 480),
        "1280x960, 1 face": photo(1280, 960),
        "1280x960, 8 faces": montage(1280, 960),
        SAME: enlarged(photo(640, 480), *LARGE),
        FAR: photo(*LARGE),
    }
    jpegs = {name: encoded(pixels) for name, pixels in scenes.items()}
    with running() as gateway, bare(ASKED_BARE_MS) as nothing:
        asked = {name: requests_of_round(lone(gateway.url, jpeg, WARM_UP)) for name, jpeg in jpegs.items()}
        rounds = [
            {name: lone(gateway.url, jpeg, asked[name]) for name, jpeg in jpegs.items()}
            | {CLIENT: lone(nothing, jpegs[SMALL], asked[SMALL])}
            for _ in range(SERVED_ROUNDS)
        ]
        medians = {name: [loads[name].latency_ms(0.5) for loads in rounds] for name in jpegs}
        for name in jpegs:
            loads = [each[name] for each in rounds]
            yield spread(f"lone request {name}, p50", "ms", medians[name], found(loads))
            yield spread(
                f"lone request {name}, p99",
                "ms",
                [load.latency_ms(0.99) for load in loads],
                f"of {asked[name]} a round",
            )
        for name in (SAME, FAR):
            yield ratios(f"{name}, over 640x480", medians[name], medians[SMALL])
        yield from _parts([each[SMALL] for each in rounds], [each[CLIENT] for each in rounds])
        yield from _include_costs(gateway, jpegs[SMALL])


def lone(url: str, jpeg: bytes, requests: int) -> Outcome:
    return callers(1, repeat(post(f"{url}/v1/emotions", jpeg), requests))


def requests_of_round(warm_up: Outcome) -> int:
    """How many make a round of some seconds."""
    return max(LEAST, round(SECONDS * 1e3 / warm_up.latency_ms(0.5)))


def found(loads: list[Outcome]) -> str:
    """How many faces the answers hold, and what was answered otherwise."""
    faces = {len(json.loads(answer.body)["faces"]) for load in loads for answer in load.answers[:1]}
    errors = sum(sum(load.errors.values()) for load in loads)
    return f"{', '.join(map(str, sorted(faces)))} found" + (f", {errors} errors" if errors else "")


def _parts(loads: list[Outcome], of_nothing: list[Outcome]) -> Iterator[Figure]:
    """`Server-Timing` names the stages; what the caller waits beside them is the client and the overhead."""
    name = f"lone request {SMALL}, "
    for stage in STAGES:
        medians = [statistics.median(answer.stages_ms[stage] for answer in load.answers) for load in loads]
        yield spread(name + stage, "ms", medians)
    client = [_median(load, _beside_ms) for load in of_nothing]
    beside = [_median(load, _beside_ms) for load in loads]
    between = [_median(load, lambda answer: _beside_ms(answer) + _between_ms(answer)) for load in loads]
    yield spread(
        name + "client",
        "ms",
        client,
        "of a server that only keeps a core busy for as long: what the client and the kernel take",
    )
    yield spread(
        name + "overhead",
        "ms",
        [all_ms - client_ms for all_ms, client_ms in zip(beside, client, strict=True)],
        "what the caller measures less the stages and the client: HTTP, checks, JSON, metrics, log",
    )
    yield spread(
        name + "all but decode, detect, classify and the client",
        "ms",
        [all_ms - client_ms for all_ms, client_ms in zip(between, client, strict=True)],
        f"with the client {statistics.median(between):.2f}",
    )


def _beside_ms(answer: Answer) -> float:
    return answer.latency_s * 1e3 - sum(answer.stages_ms[stage] for stage in STAGES)


def _between_ms(answer: Answer) -> float:
    return answer.stages_ms["queue"] + answer.stages_ms["align"]


def _median(load: Outcome, value: Callable[[Answer], float]) -> float:
    return statistics.median(value(answer) for answer in load.answers)


def _include_costs(gateway: Process, jpeg: bytes) -> Iterator[Figure]:
    """Each part of an answer that has to be asked for, over the neighbouring request without any."""
    queries = ["", *(f"?include={part.value}" for part in Include)]
    requests = [post(f"{gateway.url}/v1/emotions{query}", jpeg) for query in queries]
    costs: dict[str, list[float]] = {part.value: [] for part in Include}
    for _ in range(SERVED_ROUNDS):
        load = callers(1, requests * INCLUDING)
        assert not load.errors, load.errors
        times = np.array([answer.latency_s * 1e3 for answer in load.answers]).reshape(INCLUDING, -1)
        for part, cost in zip(costs, np.median(times[:, 1:] - times[:, :1], axis=0), strict=True):
            costs[part].append(float(cost))
    for part, of_part in costs.items():
        yield spread(f"include={part}", "ms", of_part, "over none")
