"""`GET /`: a page to try out the service, and its files."""

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
from service.http.request_state import state_of
from service.vision.formats import CONTENT_TYPES

# Not guessed: systems differ in the types of file endings, and browsers run scripts of this type only.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
PAGE = "index.html"
ABOUT_SERVICE = "service.json"
# `blob:` is for the chosen photos and videos, `data:` for the heatmaps of an answer.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    # Browsers check the digest of each file at every load, so that two versions are never mixed.
    "Cache-Control": "no-cache",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file in memory. Its digest tells a browser whether its copy is current."""

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


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """Facts that the page needs before the first photo."""

    groups_only: bool
    body_limit_bytes: int
    recording_limit_bytes: int
    timeout_s: float
    prior: str
    asks_for_key: bool
    allows_anonymous: bool
    shows_docs: bool

    def as_json(self) -> bytes:
        return json.dumps(
            {
                "version": __version__,
                "media_types": sorted(CONTENT_TYPES),
                "include": [] if self.groups_only else [part.value for part in Include],
                "body_limit_bytes": self.body_limit_bytes,
                "recording_limit_bytes": self.recording_limit_bytes,
                "timeout_s": self.timeout_s,
                "prior": self.prior,
                "asks_for_key": self.asks_for_key,
                "allows_anonymous": self.allows_anonymous,
                "shows_docs": self.shows_docs,
            }
        ).encode()


def playground_router(facts: ServiceFacts) -> APIRouter:
    """All files are read once: a request never waits for the disk."""
    folder = files("service") / "playground"
    static = {
        item.name: StaticFile.of(item.name, item.read_bytes())
        for item in folder.iterdir()
        if PurePosixPath(item.name).suffix in MEDIA_TYPES
    }
    page = static.pop(PAGE)
    static[ABOUT_SERVICE] = StaticFile.of(ABOUT_SERVICE, facts.as_json())
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def home(request: Request) -> Response:
        # The admin port has no API to try out, only documentation.
        if state_of(request.scope).at_admin_port:
            return RedirectResponse("docs")
        answer = page.answer(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    @router.get("/playground/{name}")
    async def file(request: Request, name: str) -> Response:
        if name not in static:
            raise NotFound("no resource has this address")
        return static[name].answer(request)

    return router
