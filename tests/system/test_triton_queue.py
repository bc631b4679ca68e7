"""Calls that wait on a real tritonserver: stalls, deadlines, cancelled calls, and refusals of the queue."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import numpy as np
import pytest

from service.assembly import Engines
from service.core.deadline import Deadline
from service.core.errors import DeadlineExceeded, Overloaded
from service.inference.triton import TritonDetector
from tests.conftest import eventually, serving
from tests.system.test_triton_engine import (
    CLASSIFIER,
    DETECTOR,
    MODELS,
    engines_of,
    faces,
    outcome,
    settings_for,
)
from tests.triton.server import TritonServer, add_parameter, triton

# A server loads its models before it is ready, which takes long on a busy machine.
pytestmark = pytest.mark.timeout(300)

BOTH = pytest.mark.parametrize("name", [CLASSIFIER, DETECTOR])
# One call runs, and Triton has fetched two more from the queue. A fetched call runs even if it is cancelled.
TAKEN = 3


async def call(engines: Engines, name: str, timeout_s: float = 60, count: int = 1) -> None:
    """One call of a model: the smallest image for the detector, or `count` faces for the classifier."""
    deadline = Deadline.after(timeout_s)
    if name == CLASSIFIER:
        await engines.classifier.classify(faces(count), deadline)
    else:
        assert isinstance(engines.detector, TritonDetector)
        await engines.detector.detect(np.zeros((32, 32, 3), np.uint8), 32, 0.9, deadline)


def waiting_calls(server: TritonServer, name: str) -> float:
    return server.metric("nv_inference_pending_request_count", model=name)


def circuit(engines: Engines, name: str) -> str | None:
    return (engines.classifier if name == CLASSIFIER else engines.detector).circuit


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with slow models: all calls of a test arrive while the first one runs."""
    models = tmp_path_factory.mktemp("slow") / "models"
    shutil.copytree(MODELS, models)
    for name in (CLASSIFIER, DETECTOR):
        add_parameter(models, name, "delay_s", 0.4)
    with triton(models) as server:
        yield server


@pytest.fixture(scope="module")
def server_on_one_core() -> Iterator[TritonServer]:
    """A server on one core.

    Its threads alternate, so a thread often looks for another thread that has not returned yet.
    """
    cores = os.sched_getaffinity(0)
    with ExitStack() as stack:
        os.sched_setaffinity(0, {min(cores)})
        try:
            server = stack.enter_context(triton(MODELS))
        finally:
            os.sched_setaffinity(0, cores)
        yield server


@BOTH
async def test_no_call_waits_while_its_model_is_free(server_on_one_core: TritonServer, name: str) -> None:
    """A batcher that misses the end of a call sleeps for 500 ms.

    Otherwise three small calls wait some 10 ms.
    """

    def waited_s() -> float:
        return server_on_one_core.metric("nv_inference_queue_duration_us", model=name) / 1e6

    stalls = 0
    async with engines_of(settings_for(server_on_one_core)) as engines:
        await call(engines, name)
        for _ in range(40):
            before = waited_s()
            await asyncio.gather(*(call(engines, name) for _ in range(3)))
            stalls += waited_s() - before > 0.25
    # A few stalls are allowed, since the whole machine may stop for a moment.
    assert stalls < 5


@asynccontextmanager
async def only_taken_calls_run(server: TritonServer, name: str) -> AsyncIterator[Engines]:
    """Keep a model busy during the block with `TAKEN` calls. No call that the block makes may run."""

    def counted() -> float:
        return server.metric("nv_inference_count", model=name)

    async with engines_of(settings_for(server)) as engines:
        # Triton counts a call after it has answered.
        at_first, size = counted(), 32 if name == CLASSIFIER else 1
        await call(engines, name)
        await asyncio.to_thread(eventually, lambda: counted() > at_first)
        before = counted()
        taken = [asyncio.create_task(call(engines, name, count=size)) for _ in range(TAKEN)]
        await asyncio.to_thread(eventually, lambda: waiting_calls(server, name) == TAKEN - 1)
        yield engines
        await asyncio.gather(*taken)
        await call(engines, name)
        await asyncio.to_thread(eventually, lambda: waiting_calls(server, name) == 0)
        await asyncio.to_thread(eventually, lambda: counted() - before >= TAKEN * size + 1)
        assert counted() - before == TAKEN * size + 1


@BOTH
async def test_a_call_that_waits_past_its_deadline_never_runs(slow_server: TritonServer, name: str) -> None:
    async with only_taken_calls_run(slow_server, name) as engines:
        late = [outcome(call(engines, name, timeout_s=0.08)) for _ in range(5)]
        assert set(await asyncio.gather(*late)) == {DeadlineExceeded.__name__}
        assert circuit(engines, name) == "closed"


@BOTH
async def test_a_cancelled_call_never_runs(slow_server: TritonServer, name: str) -> None:
    async with only_taken_calls_run(slow_server, name) as engines:
        cancelled = [asyncio.create_task(call(engines, name)) for _ in range(5)]
        await asyncio.to_thread(eventually, lambda: waiting_calls(slow_server, name) == TAKEN - 1 + 5)
        for task in cancelled:
            task.cancel()


async def test_a_photo_behind_many_other_calls_is_late_and_the_circuit_stays_closed(
    slow_server: TritonServer, astronaut_jpeg: bytes
) -> None:
    settings = settings_for(slow_server, port=0)
    with serving(settings) as gateway:
        async with engines_of(settings) as others:
            flood = [asyncio.create_task(call(others, DETECTOR)) for _ in range(50)]
            await asyncio.to_thread(eventually, lambda: waiting_calls(slow_server, DETECTOR) > 40)
            late = {"Content-Type": "image/jpeg", "X-Timeout-Ms": "400"}
            answer = await asyncio.to_thread(
                gateway.client.post, "/v1/emotions", content=astronaut_jpeg, headers=late
            )
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            assert gateway.metric(f'expressnet_circuit_state{{engine="{DETECTOR}",state="closed"}}') == 1
            assert gateway.ready
            # Triton refused no call, so only the number of waiting calls shows the overload.
            assert slow_server.metric("nv_inference_request_failure", model=DETECTOR, reason="REJECTED") == 0
            for other in flood:
                other.cancel()
        assert gateway.post(astronaut_jpeg).status_code == 200


@pytest.fixture(scope="module")
def limited_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Slow models with queue policies that are not the project's own.

    The policy of the classifier limits the wait. The policy of the detector limits the length of the queue.
    """
    models = tmp_path_factory.mktemp("limited") / "models"
    shutil.copytree(MODELS, models)
    for name, limit in (
        (CLASSIFIER, "default_timeout_microseconds: 100000"),
        (DETECTOR, "max_queue_size: 2"),
    ):
        add_parameter(models, name, "delay_s", 0.2)
        config = models / name / "config.pbtxt"
        policy = f"dynamic_batching {{ default_queue_policy {{ {limit} }}"
        config.write_text(config.read_text().replace("dynamic_batching {", policy))
    with triton(models) as server:
        yield server


@BOTH
async def test_a_refusal_of_the_queue_is_overload_and_leaves_the_circuit_closed(
    limited_server: TritonServer, name: str
) -> None:
    async with engines_of(settings_for(limited_server)) as engines:
        found = await asyncio.gather(*(outcome(call(engines, name, count=32)) for _ in range(20)))
        assert set(found) == {"answered", Overloaded.__name__}
        assert circuit(engines, name) == "closed"
