"""What a request passes before it reaches its route: the stack of layers, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.middleware.cors import CORSMiddleware

from service.access.counts import Counts, LocalCounts
from service.access.keys import Keyring, KeysFileError, watch
from service.access.limiter import Limiter
from service.access.rates import Rate
from service.compliance.deployment import audited
from service.core.backlog import Backlog
from service.core.manifest import Manifest
from service.http.layers.admission import Admission
from service.http.layers.auditing import Auditing
from service.http.layers.authentication import Authentication
from service.http.layers.observation import Observation
from service.http.layers.origins import Origins
from service.http.layers.ports import HOME, Ports
from service.http.layers.quotas import Quotas
from service.http.layers.security_headers import SecurityHeaders, docs_policy
from service.http.routes.health import Readiness
from service.http.routes.playground import POLICY
from service.http.transport.sockets import STREAM
from service.settings import Settings
from service.telemetry.audit import Audit
from service.telemetry.metrics import Metrics

ROUTES = frozenset({"/v1/emotions", "/v1/emotions/batch", STREAM})
SENT = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Timeout-Ms")
READ = ("RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "X-Request-ID")


@dataclass(frozen=True, slots=True)
class Door:
    """What decides who comes in, and what writes it down: keys, rates and audit, each only where set."""

    keyring: Keyring | None
    limiter: Limiter | None
    audit: Audit | None
    metrics: Metrics

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run as long as requests come."""
        found = [] if self.keyring is None else [watch(self.keyring, self.metrics)]
        return found if self.limiter is None else [*found, self.limiter.run()]

    async def prepare(self) -> None:
        """What has to be there before the first request."""
        if self.limiter is not None:
            await self.limiter.connect()

    async def close(self) -> None:
        if self.limiter is not None:
            await self.limiter.close()
        if self.audit is not None:
            await asyncio.to_thread(self.audit.flush)


def open_door(
    settings: Settings, metrics: Metrics, models: Sequence[Manifest], counts: Counts | None = None
) -> Door:
    """models: all that answer; counts: where rates are counted without Redis, this process if None.

    Raises `KeysFileError` or `SettingsError` when the keys or the audit file cannot be used.
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
    return Door(keyring, limiter, audit, metrics)


def add_layers(
    app: FastAPI, settings: Settings, readiness: Readiness, backlog: Backlog, metrics: Metrics, door: Door
) -> None:
    """The innermost first: each that is added stands around those before it."""
    if door.audit is not None:
        app.add_middleware(Auditing, audit=door.audit)
    app.add_middleware(Admission, settings=settings, readiness=readiness, backlog=backlog, metrics=metrics)
    if door.limiter is not None:
        default = None if settings.rate_limit is None else Rate.parse(settings.rate_limit)
        app.add_middleware(Quotas, limiter=door.limiter, default=default, metrics=metrics)
    if door.keyring is not None:
        app.add_middleware(
            Authentication,
            keyring=door.keyring,
            allow_anonymous=settings.allow_anonymous,
            metrics=metrics,
        )
    if settings.cors_origins:
        # A browser asks for leave before it sends a key, so this stands around authentication.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=SENT,
            expose_headers=READ,
        )
    app.add_middleware(Origins, allowed=settings.cors_origins, metrics=metrics)
    if settings.admin_port is not None:
        app.add_middleware(Ports, admin_port=settings.admin_port)
    app.add_middleware(Observation, metrics=metrics, routes=ROUTES)
    page = get_swagger_ui_html(
        openapi_url=app.openapi_url or "",
        title="",
        oauth2_redirect_url=app.swagger_ui_oauth2_redirect_url,
        swagger_ui_parameters=app.swagger_ui_parameters,
    )
    policies = {"/docs": docs_policy(bytes(page.body).decode()), HOME: POLICY}
    app.add_middleware(SecurityHeaders, policies=policies)
