"""The stack of layers around the routes, and the keys, rates and audit that the layers share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.access.counts import Counts, LocalCounts
from service.access.keys import Keyring, KeysFileError, watch
from service.access.limiter import Limiter
from service.access.rates import Rate
from service.compliance.deployment import audited
from service.core.manifest import Manifest
from service.http.in_flight import InFlight
from service.http.layers.admission import Admission, AdmissionLimits
from service.http.layers.auditing import Auditing
from service.http.layers.authentication import Authentication
from service.http.layers.observation import Observation
from service.http.layers.origins import Origins
from service.http.layers.ports import Ports
from service.http.layers.quotas import Quotas
from service.http.layers.refusals import Refusals
from service.http.layers.security_headers import SecurityHeaders
from service.http.readiness import Readiness
from service.http.route_table import RouteTable
from service.settings import Settings
from service.telemetry.audit import Audit
from service.telemetry.metrics import Metrics

SENT = (
    *("Authorization", "Content-Type", "Idempotency-Key"),
    *("X-API-Key", "X-Request-ID", "X-Timeout-Ms"),
)
READ = ("Location", "RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "X-Request-ID")

OPTIONS_BYTES = 16_384
"""Max size of a body of options in JSON."""


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Keys, rates and audit; each is None unless it is set."""

    keyring: Keyring | None
    limiter: Limiter | None
    audit: Audit | None
    metrics: Metrics

    def background(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Background tasks by name; they run as long as the service."""
        found: dict[str, Callable[[], Awaitable[None]]] = {}
        if (keyring := self.keyring) is not None:
            found["keys file"] = lambda: watch(keyring, self.metrics)
        if self.limiter is not None:
            found["redis"] = self.limiter.run
        return found

    async def prepare(self) -> None:
        """Connect to Redis, before the first request."""
        if self.limiter is not None:
            await self.limiter.connect()

    async def close(self) -> None:
        if self.limiter is not None:
            await self.limiter.close()
        if self.audit is not None:
            await asyncio.to_thread(self.audit.flush)


def build_access_control(
    settings: Settings, metrics: Metrics, models: Sequence[Manifest], counts: Counts | None = None
) -> AccessControl:
    """models: all served models; counts: counts rates without Redis, by default in this process alone.

    Raises `KeysFileError` or `SettingsError` if the keys file or the audit file cannot be used.
    """
    try:
        keyring = None if settings.keys_file is None else Keyring(settings.keys_file)
    except KeysFileError as error:
        raise KeysFileError(f"EXPRESSNET_KEYS_FILE={settings.keys_file} cannot be used: {error}.") from None
    limiter = None
    if settings.rate_limit is not None or keyring is not None:
        url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
        limiter = Limiter(url, metrics.rate_store_up.set, counts or LocalCounts())
    audit = None
    if settings.audit_file is not None:
        audit = Audit(
            settings.audit_file, audited(settings.declaration), models, metrics.audit_lines_lost.inc
        )
    return AccessControl(keyring, limiter, audit, metrics)


def add_layers(
    app: FastAPI,
    settings: Settings,
    routes: RouteTable,
    readiness: Readiness,
    in_flight: InFlight,
    access: AccessControl,
) -> None:
    """Add the innermost layer first: each layer wraps the earlier ones."""
    metrics = access.metrics
    if access.audit is not None:
        app.add_middleware(Auditing, audit=access.audit)
    body_bytes = {
        "image": settings.body_limit_bytes,
        "batch": settings.batch_body_limit_bytes,
        "options": OPTIONS_BYTES,
        "recording": settings.recording_limit_bytes,
    }
    limits = AdmissionLimits(body_bytes, settings.timeout_s)
    app.add_middleware(Admission, limits=limits, readiness=readiness, in_flight=in_flight)
    if access.limiter is not None:
        default = None if settings.rate_limit is None else Rate.parse(settings.rate_limit)
        app.add_middleware(Quotas, limiter=access.limiter, default=default)
    if access.keyring is not None:
        app.add_middleware(Authentication, keyring=access.keyring, allow_anonymous=settings.allow_anonymous)
    app.add_middleware(Origins, allowed=settings.cors_origins)
    if settings.admin_port is not None:
        app.add_middleware(Ports, admin_port=settings.admin_port)
    app.add_middleware(Refusals, metrics=metrics)
    if settings.cors_origins:
        # Around `Refusals`: a browser's preflight request has no key, and a page may read a refusal.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=SENT,
            expose_headers=READ,
        )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Observation, metrics=metrics, routes=routes, root_path=settings.root_path or "")
