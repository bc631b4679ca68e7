"""`GET /`: the page to try the service out with, and the files that it is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from service import __version__
from service.api.schemas import Include
from service.core.errors import NotFound
from service.http.layers.ports import HOME, PLAYGROUND
from service.settings import Settings
from service.vision.decode import CONTENT_TYPES

# Not guessed: what a system thinks of file endings differs, and a browser runs no script of another type.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
PAGE = "index.html"
ABOUT_SERVICE = "service.json"
# blob: is the photo that somebody chose, data: the maps of an answer.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    b"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    # Always asked for again, by its digest, so that a new version is never mixed with an old one.
    "Cache-Control": "no-cache",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file in memory, with the digest that tells a browser whether it still has it."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> StaticFile:
        digest = sha256(content).hexdigest()[:32]
        return cls(content, MEDIA_TYPES[PurePosixPath(name).suffix], f'"{digest}"')

    def answer(self, request: Request) -> Response:
        headers = {**HEADERS, "ETag": self.etag}
        known = {
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        }
        if self.etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def about_service(settings: Settings) -> dict[str, object]:
    """What the page has to know before the first photo."""
    return {
        "version": __version__,
        "media_types": sorted(CONTENT_TYPES),
        "include": [] if settings.aggregate_only else [part.value for part in Include],
        "body_limit_bytes": settings.body_limit_bytes,
        "timeout_s": settings.timeout_s,
        "asks_for_key": settings.keys_file is not None,
        "allows_anonymous": settings.keys_file is None or settings.allow_anonymous,
        # Elsewhere a browser could not open it: it sends no key, and the admin port is another address.
        "shows_docs": settings.keys_file is None and settings.admin_port is None,
    }


def playground_router(settings: Settings) -> APIRouter:
    """Everything is read once: a request never waits for the disk."""
    folder = files("service") / "playground"
    static = {
        item.name: StaticFile.of(item.name, item.read_bytes())
        for item in folder.iterdir()
        if PurePosixPath(item.name).suffix in MEDIA_TYPES
    }
    page = static.pop(PAGE)
    static[ABOUT_SERVICE] = StaticFile.of(ABOUT_SERVICE, json.dumps(about_service(settings)).encode())
    router = APIRouter(include_in_schema=False)

    @router.api_route(HOME, methods=["GET", "HEAD"])
    async def home(request: Request) -> Response:
        # The admin port has no API to try out, but its documentation.
        if getattr(request.state, "admin_port", False):
            return RedirectResponse("/docs")
        return page.answer(request)

    @router.api_route(PLAYGROUND + "{name}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        if name not in static:
            raise NotFound("no resource has this address")
        return static[name].answer(request)

    return router
