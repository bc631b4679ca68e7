"""Several gateways that share rates through a real redis-server, which stops and starts again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from structlog.testing import capture_logs

from service.access import redis_counts
from service.settings import Settings
from tests.conftest import Gateway, eventually, free_port, serving
from tests.fake_engine import fake_engines

PASSWORD = "not-to-be-logged"


class Redis:
    """A redis-server on its own port, which keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._options: dict[str, object] = {"port": self._port}
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"

    def encrypt(self) -> None:
        """Use TLS from the next start on."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        files = {name: self._folder / name for name in ("ca.crt", "redis.crt", "redis.key")}
        authority.cert_pem.write_to_path(files["ca.crt"])
        issued.cert_chain_pems[0].write_to_path(files["redis.crt"])
        issued.private_key_pem.write_to_path(files["redis.key"])
        self._options = {"port": 0, "tls-port": self._port, "tls-auth-clients": "no"}
        self._options |= {"tls-cert-file": files["redis.crt"], "tls-key-file": files["redis.key"]}
        self._options |= {"tls-ca-cert-file": files["ca.crt"]}
        self.url = f"rediss://:{PASSWORD}@127.0.0.1:{self._port}/0?ssl_ca_certs={files['ca.crt']}"

    def start(self) -> None:
        options = self._options | {"bind": "127.0.0.1", "save": "", "appendonly": "no"}
        options |= {"requirepass": PASSWORD, "dir": self._folder}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        eventually(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """The server keeps its connections, but answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("not installed: redis-server")
    server = Redis(tmp_path)
    yield server
    server.kill()


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
