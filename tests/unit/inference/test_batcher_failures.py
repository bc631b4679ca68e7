"""Batching when something fails: only the affected waiters get the error, and no waiter hangs."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.arrays import Classification, Faces
from service.core.deadline import NEVER, Deadline
from service.core.errors import EngineContractError, EngineUnavailable, Internal, Overloaded, ServiceError
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from tests.fake_engine import FakeClassifier
from tests.unit.inference.batching import TEST_LIMIT_S, batching, brightness_of, faces, settle

POISON = 255


@dataclass
class PoisonedClassifier(FakeClassifier):
    """Fails each batch that has a face of brightness `POISON`."""

    failure: Exception | None = None

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        answer = await super().classify(faces, deadline)
        if self.failure and (faces == POISON).any():
            raise self.failure
        return answer


def rows(
    count: int,
    probabilities: tuple[float, ...] = (0.25, 0.75),
    gates: int | None = None,
    hints: tuple[float, ...] | None = None,
) -> Classification:
    return Classification(
        np.tile(np.array(probabilities, np.float32), (count, 1)),
        np.zeros((count if gates is None else gates, 2, 4), np.float32),
        np.zeros((count, 1), np.float32),
        np.zeros((count, 1), np.float32) if hints is None else np.array(hints, np.float32)[:, None],
    )


async def failure_of(task: asyncio.Task[tuple[Classification, float]]) -> Exception:
    with pytest.raises(ServiceError) as caught:
        await task
    return caught.value


async def test_a_failing_batch_fails_only_its_own_waiters() -> None:
    gate = asyncio.Event()
    async with batching(PoisonedClassifier(gate=gate, failure=EngineUnavailable("down")), batch=2) as rig:
        before = rig.submit(1, 2)
        await settle()
        failing, beside = rig.submit(POISON), rig.submit(3)
        after = rig.submit(4, 5)
        await settle()
        gate.set()
        assert brightness_of(await before) == [1, 2]
        assert isinstance(await failure_of(failing), EngineUnavailable)
        assert isinstance(await failure_of(beside), EngineUnavailable)
        assert brightness_of(await after) == [4, 5]
        assert rig.batcher.alive


async def test_one_failing_part_fails_a_split_request_and_drops_its_other_parts() -> None:
    gate = asyncio.Event()
    async with batching(PoisonedClassifier(gate=gate, failure=EngineUnavailable("down")), batch=2) as rig:
        large = rig.submit(1, 2, POISON, 3, 4, 5, 6, 7)
        await settle()
        gate.set()
        assert isinstance(await failure_of(large), EngineUnavailable)
        assert brightness_of(await rig.submit(8)) == [8]
    assert sum(rig.sizes) < 9


async def test_an_error_of_the_service_is_passed_on_unchanged() -> None:
    error = EngineUnavailable("the engine went away")
    async with batching(FakeClassifier(error=error)) as rig:
        assert await failure_of(rig.submit(1)) is error


async def test_any_other_exception_becomes_internal_and_keeps_its_cause() -> None:
    error = KeyError("unforeseen")
    async with batching(FakeClassifier(error=error)) as rig:
        failure = await failure_of(rig.submit(1))
        assert type(failure) is Internal
        assert failure.__cause__ is error
        assert "unforeseen" not in str(failure)


class Panic(BaseException):
    """An exception of a native extension that `except Exception` does not catch."""


async def test_the_waiter_of_a_base_exception_gets_an_error() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    classifier = FakeClassifier(error=Panic())
    batcher = Batcher(classifier, BatcherLimits(8, 64, 0), BatcherEvents())
    batcher.start()
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(batcher.classify(faces(1), NEVER), TEST_LIMIT_S)
    classifier.error = None
    result, _ = await asyncio.wait_for(batcher.classify(faces(2), NEVER), TEST_LIMIT_S)
    assert brightness_of((result, 0.0)) == [2]
    await batcher.close()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(rows(2), id="rows missing"),
        pytest.param(rows(9), id="rows too many"),
        pytest.param(rows(0), id="no rows"),
        pytest.param(rows(4, gates=2), id="gates missing"),
        pytest.param(rows(4, (np.nan, 1.0)), id="not a number"),
        pytest.param(rows(4, (np.inf, 1.0)), id="infinite"),
        pytest.param(rows(4, (0.25, 0.7)), id="sums to less than 1"),
        pytest.param(rows(4, (0.3, 0.75)), id="sums to more than 1"),
        pytest.param(rows(4, (-0.5, 1.5)), id="negative"),
        pytest.param(rows(4, hints=(0, 0.5)), id="hints missing"),
        pytest.param(rows(4, hints=(0, 0.5, np.nan, 0)), id="hint not a number"),
        pytest.param(rows(4, hints=(0, 0.5, 1.5, 0)), id="hint above 1"),
        pytest.param(replace(rows(3), face_likeness=np.zeros(3, np.float32)), id="hints without an axis"),
        pytest.param(replace(rows(3), occlusion=np.full((3, 1), -1, np.float32)), id="occlusion below 0"),
    ],
)
async def test_an_answer_that_breaks_the_contract_is_never_passed_on(answer: Classification) -> None:
    classifier = FakeClassifier(answer=answer)
    async with batching(classifier) as rig:
        assert isinstance(await failure_of(rig.submit(1, 2, 3)), EngineContractError)
        classifier.answer = None
        assert brightness_of(await rig.submit(4)) == [4]


async def test_faces_of_different_sizes_fail_and_do_not_hang() -> None:
    gate = asyncio.Event()
    async with batching(FakeClassifier(gate=gate)) as rig:
        busy = rig.submit(0)
        await settle()
        tasks = [asyncio.create_task(rig.batcher.classify(faces(1, side=side), NEVER)) for side in (4, 6)]
        await settle()
        gate.set()
        await busy
        _, pending = await asyncio.wait(tasks, timeout=0.5)
        for task in pending:
            task.cancel()
        assert not pending
        assert [type(await failure_of(task)) for task in tasks] == [Internal, Internal]


def raising(faces: int) -> None:
    raise OSError("the metrics are gone")


def raising_at_zero(faces: int) -> None:
    if faces == 0:
        raise OSError("the metrics are gone")


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(BatcherEvents(batch=raising), id="batch"),
        pytest.param(BatcherEvents(depth=raising_at_zero), id="depth"),
    ],
)
async def test_after_an_error_of_an_observer_no_waiter_hangs(events: BatcherEvents) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    batcher = Batcher(FakeClassifier(), BatcherLimits(8, 64, 0), events)
    batcher.start()
    task = asyncio.create_task(batcher.classify(faces(1), NEVER))
    _, pending = await asyncio.wait([task], timeout=0.5)
    task.cancel()
    await asyncio.gather(task, batcher.close(), return_exceptions=True)
    assert not pending
    assert isinstance(task.exception(), ServiceError)


async def test_a_waiter_that_leaves_at_its_answer_does_not_affect_others() -> None:
    for leave_after in range(12):
        async with batching(FakeClassifier(), batch=2) as rig:
            leaving, staying = rig.submit(1), rig.submit(2)
            for _ in range(leave_after):
                await asyncio.sleep(0)
            leaving.cancel()
            assert brightness_of(await staying) == [2]
            await asyncio.wait([leaving])


@dataclass(frozen=True)
class Arrival:
    """A request: its faces, and the turns of the event loop until it arrives and until its caller leaves."""

    brightness: list[int]
    after: int
    leaves_after: int | None


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        st.lists(st.sampled_from([0, 60, 120, 180, POISON]), min_size=1, max_size=11),
        st.integers(0, 6),
        st.none() | st.integers(0, 12),
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=100, deadline=None)
@given(ARRIVALS, st.sampled_from([0.0, 0.001]), st.integers(1, 2), st.booleans())
def test_every_waiter_gets_exactly_one_outcome(
    arrivals: list[Arrival], delay_s: float, calls: int, failing: bool
) -> None:
    outcomes = asyncio.run(_outcomes(arrivals, delay_s, calls, KeyError("poison") if failing else None))
    assert outcomes.total() == len(arrivals)
    if not failing:
        assert not outcomes["failed"]
    leaving = sum(arrival.leaves_after is not None for arrival in arrivals)
    assert outcomes["left"] <= leaving


async def _outcomes(
    arrivals: list[Arrival], delay_s: float, calls: int, failure: Exception | None
) -> Counter[str]:
    async def caller(arrival: Arrival) -> str:
        request = rig.submit(*arrival.brightness)
        if arrival.leaves_after is not None:
            for _ in range(arrival.leaves_after):
                await asyncio.sleep(0)
            request.cancel()
        await asyncio.wait([request])
        if request.cancelled():
            return "left"
        error = request.exception()
        if isinstance(error, Overloaded):
            return "overloaded"
        if isinstance(error, Internal):
            return "failed"
        assert brightness_of(request.result()) == arrival.brightness
        return "answered"

    async with batching(
        PoisonedClassifier(failure=failure), batch=4, queue=12, delay_s=delay_s, calls=calls
    ) as rig:
        callers = []
        for arrival in arrivals:
            for _ in range(arrival.after):
                await asyncio.sleep(0)
            callers.append(asyncio.create_task(caller(arrival)))
        return Counter(await asyncio.wait_for(asyncio.gather(*callers), TEST_LIMIT_S))
