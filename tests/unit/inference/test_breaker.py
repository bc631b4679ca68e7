"""The circuit breaker, at a clock of its own."""

from __future__ import annotations

import asyncio

import pytest

from service.core.errors import DeadlineExceeded, EngineContractError, EngineUnavailable, Overloaded
from service.inference.breaker import Breaker, State


class Scene:
    """A breaker with what it depends on in the test's hands."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silent = False
        self.states: list[State] = []
        self.breaker = Breaker(
            failures=3,
            rest_s=1,
            silent=lambda: self.silent,
            changed=self.states.append,
            now=lambda: self.now,
        )

    async def call(self, error: BaseException | None = None) -> None:
        async with self.breaker.guard():
            if error is not None:
                raise error

    async def fail(self, error: BaseException, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(type(error)):
                await self.call(error)


DOWN = EngineUnavailable("down")


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_failures_in_a_row_open_it_and_a_success_closes_it(scene: Scene) -> None:
    await scene.fail(DOWN, 2)
    await scene.call()
    await scene.fail(DOWN, 2)
    assert scene.breaker.state == "closed"
    await scene.fail(DOWN)
    assert scene.breaker.state == "open"  # type: ignore[comparison-overlap]  # it changes
    with pytest.raises(EngineUnavailable, match="tried again soon"):
        await scene.call()
    scene.now = 1
    await scene.call()
    assert scene.states == ["open", "half-open", "closed"]


async def test_a_failed_probe_opens_it_for_another_rest(scene: Scene) -> None:
    await scene.fail(DOWN, 3)
    scene.now = 1
    await scene.fail(DOWN)
    scene.now = 1.9
    with pytest.raises(EngineUnavailable, match="tried again soon"):
        await scene.call()
    scene.now = 2
    await scene.call()
    assert scene.breaker.state == "closed"


async def test_only_one_call_is_the_probe(scene: Scene) -> None:
    await scene.fail(DOWN, 3)
    scene.now = 1
    async with scene.breaker.guard():
        with pytest.raises(EngineUnavailable, match="tried again soon"):
            await scene.call()
    assert scene.breaker.state == "closed"


@pytest.mark.parametrize("error", [Overloaded("full"), EngineContractError("wrong shape")])
async def test_an_engine_that_answers_no_is_not_down(scene: Scene, error: Exception) -> None:
    await scene.fail(error, 20)
    assert scene.states == []
    await scene.fail(DOWN, 3)
    scene.now = 1
    await scene.fail(error)
    assert scene.breaker.state == "closed"


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), asyncio.CancelledError()])
async def test_late_answers_count_only_from_an_engine_that_is_mute_to_all(
    scene: Scene, error: BaseException
) -> None:
    await scene.fail(error, 20)
    assert scene.states == []
    scene.silent = True
    await scene.fail(error, 3)
    assert scene.breaker.state == "open"


async def test_a_probe_that_was_given_up_leaves_the_next_call_to_probe(scene: Scene) -> None:
    await scene.fail(DOWN, 3)
    scene.now = 1
    await scene.fail(asyncio.CancelledError())
    assert scene.breaker.state == "open"
    await scene.call()
    assert scene.breaker.state == "closed"  # type: ignore[comparison-overlap]  # it changes


async def test_what_nobody_expected_is_a_failure(scene: Scene) -> None:
    await scene.fail(OSError("no more files"), 3)
    assert scene.breaker.state == "open"
