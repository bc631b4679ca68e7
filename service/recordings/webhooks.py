"""Tells callers that a recording has ended, by the Standard Webhooks specification.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore
from pydantic_core import to_json
from standardwebhooks import Webhook

from service.api.recordings import RecordingJob
from service.core.errors import InvalidRequest
from service.telemetry.logs import log

# After each failure. The last attempt is within a day.
DELAYS_S = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
# So that callers that failed together are not called together.
JITTER = 0.2
TIMEOUT_S = 10.0
MAX_WAITING = 1000
GONE = 410


class Webhooks:
    """Sends the final states of recordings. What is not delivered is lost with the process.

    hosts: the allowed hosts of addresses; secret: `whsec_` and the key in base64. outcome: called with the
    outcome of each message: `delivered` or `undelivered`.
    """

    def __init__(
        self,
        hosts: Collection[str],
        secret: str | None,
        *,
        allow_private: bool,
        outcome: Callable[[str], object],
    ) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._webhook = None if secret is None else Webhook(secret)
        self._allow_private = allow_private
        self._outcome = outcome
        self._waiting: set[asyncio.Task[None]] = set()
        self._pool: httpcore.AsyncConnectionPool | None = None

    def check(self, url: str) -> None:
        """Raises `InvalidRequest` if nothing may be sent to this address."""
        try:
            parts = urlsplit(url)
            host, user = parts.hostname, parts.username or parts.password
            _ = parts.port
        except ValueError:
            raise InvalidRequest("webhook: it is not an address") from None
        if not self._hosts or self._webhook is None:
            raise InvalidRequest("webhook: the service sends none; see EXPRESSNET_WEBHOOK_HOSTS")
        if parts.scheme not in ("https", "http") or user is not None:
            raise InvalidRequest("webhook: it is not like https://example.com/path")
        if host is None or host.lower() not in self._hosts:
            raise InvalidRequest(f"webhook: the host {host} is not allowed")
        if parts.scheme == "http" and not self._allow_private:
            raise InvalidRequest("webhook: it must be https")

    def send(self, url: str, job: RecordingJob) -> None:
        """Send in the background; a failure is tried again for a day at most."""
        if len(self._waiting) >= MAX_WAITING:
            log.warning("webhook is lost: too many wait", id=job.id)
            self._outcome("undelivered")
            return
        task = asyncio.create_task(self._deliver(url, job))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def close(self) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        if self._pool is not None:
            await self._pool.aclose()

    async def _deliver(self, url: str, job: RecordingJob) -> None:
        name = f"msg_{secrets.token_hex(16)}"  # the same at each attempt, so that a receiver knows repeats
        body = to_json(
            {
                "type": f"recording.{job.state}",
                "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "data": job.model_dump(mode="json", exclude_none=True),
            }
        )
        for delay_s in (*DELAYS_S, None):
            status = await self._attempt(url, name, body)
            if isinstance(status, int) and 200 <= status < 300:
                self._outcome("delivered")
                return
            log.info("webhook was not accepted", id=job.id, why=status, retry_s=delay_s)
            if status == GONE or delay_s is None:
                break
            await asyncio.sleep(delay_s * random.uniform(1 - JITTER, 1 + JITTER))
        self._outcome("undelivered")

    async def _attempt(self, url: str, name: str, body: bytes) -> int | str:
        """The status of the answer, or why there is none. Redirects are not followed."""
        assert self._webhook is not None  # `check` has refused
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "ExpressNet-Service",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(name, now, body.decode()),
        }
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                max_keepalive_connections=0, network_backend=_Network(self._allow_private)
            )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                # The body of the answer is not read.
                request = self._pool.stream("POST", url, headers=list(headers.items()), content=body)
                async with request as answer:
                    return answer.status
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            return f"{type(error).__name__}: {error}"


class _Network(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only. Names are looked up here: a name may change between two look-ups."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the signature of httpcore
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(place[0]) for *_, place in found]
        if not self._allow_private:
            addresses = [address for address in addresses if ip_address(address).is_global]
        if not addresses:
            raise httpcore.ConnectError(f"{host} has no public address")
        return await self._sockets.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
