"""Several gateways that share rates through a real redis-server, which stops and starts again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from service.access import redis_counts
from service.settings import Settings
from tests.conftest import Gateway, eventually, serving
from tests.fake_engine import fake_engines
from tests.redis_server import PASSWORD, Redis


@pytest.fixture
def _long_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long timeout, so that a slow answer on a busy machine does not look like a failed Redis."""
    monkeypatch.setattr(redis_counts, "TIMEOUT_S", 10.0)


@contextmanager
def gateways(redis: Redis, **given: Any) -> Iterator[tuple[Gateway, Gateway]]:
    settings = Settings.model_validate({"port": 0, "redis_url": redis.url, **given})
    with ExitStack() as stack:
        one, other = (stack.enter_context(serving(settings, fake_engines())) for _ in range(2))
        yield one, other


def shares_rates(gateway: Gateway) -> bool:
    return gateway.metric("expressnet_rate_store_up") == 1


@pytest.mark.usefixtures("_long_timeout")
def test_two_gateways_share_a_count_and_count_alone_while_redis_is_down(
    redis: Redis, faceless_jpeg: bytes
) -> None:
    redis.start()
    with capture_logs() as lines, gateways(redis, rate_limit="6/day") as (one, other):
        eventually(lambda: shares_rates(one) and shares_rates(other))

        def send(*to: Gateway) -> list[httpx.Response]:
            return [gateway.post(faceless_jpeg) for gateway in to]

        together = send(one, other, one, other, one, other)
        assert [answer.status_code for answer in together] == [200] * 6
        assert [answer.headers["RateLimit"].split(";")[1] for answer in together] == [
            f"r={remaining}" for remaining in (5, 4, 3, 2, 1, 0)
        ]
        assert [answer.status_code for answer in send(one, other)] == [429, 429]

        redis.kill()
        # No request is lost, and each gateway begins its own count.
        alone = send(*[one] * 7, *[other] * 7)
        assert [answer.status_code for answer in alone] == [*[200] * 6, 429, *[200] * 6, 429]
        assert not shares_rates(one)
        assert not shares_rates(other)
        assert one.ready

        redis.start()
        eventually(lambda: shares_rates(one) and shares_rates(other))
        # Redis kept nothing, so the shared count begins again.
        assert [answer.status_code for answer in send(*[one] * 3, *[other] * 4)] == [*[200] * 6, 429]
    events = [line["event"] for line in lines]
    assert events.count("rates are counted by this gateway alone") == 2
    assert events.count("rates are counted over all gateways") == 4
    assert PASSWORD not in repr(lines)


def test_requests_do_not_wait_for_a_redis_that_does_not_answer(redis: Redis, faceless_jpeg: bytes) -> None:
    redis.start()
    with gateways(redis, rate_limit="1000/day") as (gateway, _):
        eventually(lambda: shares_rates(gateway))
        redis.pause()
        try:
            assert [gateway.post(faceless_jpeg).status_code for _ in range(10)] == [200] * 10
            assert not shares_rates(gateway)
        finally:
            redis.resume()
        eventually(lambda: shares_rates(gateway))


@pytest.mark.usefixtures("_long_timeout")
def test_a_gateway_starts_without_its_redis(redis: Redis, faceless_jpeg: bytes) -> None:
    with gateways(redis, rate_limit="2/day") as (gateway, _):
        assert gateway.post(faceless_jpeg).status_code == 200
        assert not shares_rates(gateway)
        redis.start()
        eventually(lambda: shares_rates(gateway))
        assert gateway.post(faceless_jpeg).headers["RateLimit"].startswith('"default";r=1;')


@pytest.mark.usefixtures("_long_timeout")
def test_rates_are_shared_over_tls(redis: Redis, faceless_jpeg: bytes) -> None:
    redis.encrypt()
    redis.start()
    with gateways(redis, rate_limit="2/day") as (one, other):
        eventually(lambda: shares_rates(one) and shares_rates(other))
        answers = [gateway.post(faceless_jpeg) for gateway in (one, other, one)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
