"""Batching: which requests share a call, how long they wait, and which answer each gets."""

from __future__ import annotations

import asyncio
import random

import pytest

from service.core.deadline import NEVER
from service.core.errors import Draining, EngineUnavailable, Overloaded
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from tests.fake_engine import FakeClassifier
from tests.unit.inference.batching import LONG_S, TEST_LIMIT_S, batching, brightness_of, faces, settle


async def test_waiters_share_a_batch_while_the_engine_is_busy() -> None:
    gate = asyncio.Event()
    classifier = FakeClassifier(gate=gate)
    async with batching(classifier) as rig:
        first = rig.submit(0)
        await settle()
        others = [rig.submit(10 * value) for value in range(1, 6)]
        await settle()
        assert rig.sizes == [1]
        gate.set()
        results = await asyncio.gather(first, *others)
    assert rig.sizes == [1, 5]
    assert classifier.batches == [1, 5]
    assert [brightness_of(result) for result in results] == [[0], [10], [20], [30], [40], [50]]


async def test_every_waiter_gets_its_own_answer() -> None:
    generator = random.Random(0)
    requests = [[generator.randrange(256) for _ in range(generator.randint(1, 8))] for _ in range(30)]
    async with batching(FakeClassifier(), queue=1000) as rig:
        results = await asyncio.gather(*(rig.submit(*values) for values in requests))
    assert [brightness_of(result) for result in results] == requests
    assert sum(rig.sizes) == sum(map(len, requests))
    assert len(rig.sizes) < len(requests)


async def test_a_request_larger_than_a_batch_is_split_and_joined_in_order() -> None:
    classifier = FakeClassifier()
    async with batching(classifier, batch=4) as rig:
        result = await rig.submit(*range(10))
    assert rig.sizes == [4, 4, 2]
    assert classifier.batches == [4, 4, 2]
    assert brightness_of(result) == list(range(10))


async def test_a_full_queue_raises_overloaded_at_once() -> None:
    gate = asyncio.Event()
    async with batching(FakeClassifier(gate=gate), queue=4) as rig:
        in_call = rig.submit(1)
        await settle()
        waiting = rig.submit(2, 3, 4)
        await settle()
        with pytest.raises(Overloaded, match="3 faces"):
            await rig.submit(5, 6)
        last = rig.submit(7)
        await settle()
        assert rig.depths[-1] == 4
        with pytest.raises(Overloaded):
            await rig.submit(8)
        gate.set()
        assert [brightness_of(await task) for task in (in_call, waiting, last)] == [[1], [2, 3, 4], [7]]
        assert brightness_of(await rig.submit(9)) == [9]


async def test_a_request_larger_than_the_queue_is_accepted_when_the_queue_is_empty() -> None:
    gate = asyncio.Event()
    async with batching(FakeClassifier(gate=gate), batch=4, queue=4) as rig:
        large = rig.submit(*range(10))
        await settle()
        with pytest.raises(Overloaded):
            await rig.submit(11)
        gate.set()
        assert brightness_of(await large) == list(range(10))


async def test_faces_of_a_cancelled_waiter_are_not_computed() -> None:
    gate = asyncio.Event()
    async with batching(FakeClassifier(gate=gate)) as rig:
        in_call = rig.submit(1)
        await settle()
        leaving, staying = rig.submit(2, 3, 4), rig.submit(5)
        await settle()
        leaving.cancel()
        await settle()
        assert leaving.cancelled()
        assert rig.depths[-1] == 1
        gate.set()
        assert [brightness_of(await task) for task in (in_call, staying)] == [[1], [5]]
    assert rig.sizes == [1, 1]


async def test_cancelling_a_split_request_removes_its_waiting_faces_from_the_queue() -> None:
    gate = asyncio.Event()
    async with batching(FakeClassifier(gate=gate), batch=4) as rig:
        large = rig.submit(*range(12))
        await settle()
        assert rig.depths[-1] == 8
        large.cancel()
        await settle()
        assert rig.depths[-1] == 0
        gate.set()
    assert rig.sizes == [4]


async def test_a_lone_face_waits_for_others_until_the_max_delay() -> None:
    async with batching(FakeClassifier(), delay_s=0.05) as rig:
        _, waited_s = await rig.submit(1)
    assert 0.045 <= waited_s < 5


async def test_a_face_does_not_wait_when_no_image_is_in_detection() -> None:
    async with batching(FakeClassifier(), delay_s=LONG_S, images_in_detection=False) as rig:
        await rig.submit(1)
        with rig.batcher.image_in_detection():
            waiting = rig.submit(2)
            await settle()
            assert not waiting.done()
        await waiting
    assert rig.sizes == [1, 1]


async def test_later_faces_do_not_prolong_the_wait_of_the_oldest() -> None:
    async with batching(FakeClassifier(), batch=256, queue=256, delay_s=0.06) as rig:
        oldest = rig.submit(1)
        later = []
        while not oldest.done():
            later.append(rig.submit(2))
            assert len(later) < 200, "each later face restarts the wait"
            await asyncio.sleep(0.01)
        assert brightness_of(await oldest) == [1]
        await asyncio.gather(*later)
    assert rig.sizes[0] > 1


async def test_a_full_batch_is_sent_at_once() -> None:
    async with batching(FakeClassifier(), batch=4, delay_s=LONG_S) as rig:
        results = await asyncio.gather(*(rig.submit(value) for value in range(4)))
    assert [brightness_of(result) for result in results] == [[0], [1], [2], [3]]
    assert rig.sizes == [4]
    assert all(waited_s < TEST_LIMIT_S for _, waited_s in results)


async def test_as_many_calls_run_in_parallel_as_the_limit_allows() -> None:
    gate = asyncio.Event()
    async with batching(FakeClassifier(gate=gate), batch=2, calls=2) as rig:
        tasks = [rig.submit(value, value) for value in range(5)]
        await settle()
        assert rig.sizes == [2, 2]
        gate.set()
        assert [brightness_of(await task) for task in tasks] == [[value] * 2 for value in range(5)]


async def test_closing_answers_admitted_requests_and_refuses_new_requests() -> None:
    gate = asyncio.Event()
    async with batching(FakeClassifier(gate=gate), batch=2, delay_s=LONG_S) as rig:
        admitted = [rig.submit(1, 2), rig.submit(3, 4), rig.submit(5)]
        await settle()
        closing = asyncio.create_task(rig.batcher.close())
        await settle()
        assert not rig.batcher.alive
        with pytest.raises(Draining):
            await rig.submit(6)
        assert not closing.done()
        gate.set()
        await closing
        assert [brightness_of(await task) for task in admitted] == [[1, 2], [3, 4], [5]]


async def test_before_the_start_nothing_is_admitted() -> None:
    batcher = Batcher(FakeClassifier(), BatcherLimits(8, 64, 0), BatcherEvents())
    assert not batcher.alive
    with pytest.raises(EngineUnavailable):
        await batcher.classify(faces(1), NEVER)
    await batcher.close()
    with pytest.raises(Draining):
        await batcher.classify(faces(1), NEVER)
