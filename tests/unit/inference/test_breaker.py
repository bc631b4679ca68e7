"""The circuit breaker, with a clock that the test sets."""

from __future__ import annotations

import asyncio

import pytest

from service.core.errors import DeadlineExceeded, EngineContractError, EngineUnavailable, Overloaded
from service.inference.breaker import Breaker, State


class Circuit:
    """A breaker whose clock and engine the test controls."""

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
def circuit() -> Circuit:
    return Circuit()


async def test_consecutive_failures_open_the_circuit_and_a_success_closes_it(circuit: Circuit) -> None:
    await circuit.fail(DOWN, 2)
    await circuit.call()
    await circuit.fail(DOWN, 2)
    assert circuit.breaker.state == "closed"
    await circuit.fail(DOWN)
    assert circuit.breaker.state == "open"  # type: ignore[comparison-overlap]  # it changes
    with pytest.raises(EngineUnavailable, match="tried again soon"):
        await circuit.call()
    circuit.now = 1
    await circuit.call()
    assert circuit.states == ["open", "half-open", "closed"]


async def test_a_failed_probe_opens_the_circuit_for_another_rest(circuit: Circuit) -> None:
    await circuit.fail(DOWN, 3)
    circuit.now = 1
    await circuit.fail(DOWN)
    circuit.now = 1.9
    with pytest.raises(EngineUnavailable, match="tried again soon"):
        await circuit.call()
    circuit.now = 2
    await circuit.call()
    assert circuit.breaker.state == "closed"


async def test_only_one_call_is_the_probe(circuit: Circuit) -> None:
    await circuit.fail(DOWN, 3)
    circuit.now = 1
    async with circuit.breaker.guard():
        with pytest.raises(EngineUnavailable, match="tried again soon"):
            await circuit.call()
    assert circuit.breaker.state == "closed"


@pytest.mark.parametrize("error", [Overloaded("full"), EngineContractError("wrong shape")])
async def test_an_engine_that_answers_with_an_error_is_not_down(circuit: Circuit, error: Exception) -> None:
    await circuit.fail(error, 20)
    assert circuit.states == []
    await circuit.fail(DOWN, 3)
    circuit.now = 1
    await circuit.fail(error)
    assert circuit.breaker.state == "closed"


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), asyncio.CancelledError()])
async def test_late_answers_count_only_while_the_engine_answers_no_call(
    circuit: Circuit, error: BaseException
) -> None:
    await circuit.fail(error, 20)
    assert circuit.states == []
    circuit.silent = True
    await circuit.fail(error, 3)
    assert circuit.breaker.state == "open"


async def test_after_a_cancelled_probe_the_next_call_is_the_probe(circuit: Circuit) -> None:
    await circuit.fail(DOWN, 3)
    circuit.now = 1
    await circuit.fail(asyncio.CancelledError())
    assert circuit.breaker.state == "open"
    await circuit.call()
    assert circuit.breaker.state == "closed"  # type: ignore[comparison-overlap]  # it changes


async def test_an_unexpected_exception_is_a_failure(circuit: Circuit) -> None:
    await circuit.fail(OSError("no more files"), 3)
    assert circuit.breaker.state == "open"
