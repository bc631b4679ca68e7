"""The three forms in which an image arrives: raw body, multipart field, base64 in JSON; never on disk."""

from __future__ import annotations

import binascii
import re
import sys

from fastapi import Request
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.api.schemas import ImageUpload
from service.core.errors import InvalidRequest, UnsupportedMediaType
from service.http.disconnect import ClientDisconnected
from service.vision.decode import CONTENT_TYPES

MULTIPART, JSON, OCTETS = "multipart/form-data", "application/json", "application/octet-stream"

# RFC 2046, 5.1.1
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
# One key and a data URL have three of these; a million of them take half a minute to refuse by name.
_JSON_STRUCTURE = (b"[", b"{", b",", b":")
_JSON_STRUCTURE_LIMIT = 256


class _InMemoryParser(MultiPartParser):
    """Starlette's parser spools parts above 1 MB to disk; the body's own limit bounds memory here."""

    spool_max_size = sys.maxsize

    def close(self) -> None:
        """Of a body that ends within a part, the form does not hold that part's file."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_image(request: Request) -> bytes:
    """The one image of a request. Raises `UnsupportedMediaType` or `InvalidRequest`."""
    media_type = _media_type(request)
    if media_type in CONTENT_TYPES or media_type == OCTETS:
        return await _read_body(request)
    if media_type == JSON:
        return _from_json(await _read_body(request))
    if media_type == MULTIPART:
        (image,) = await _read_parts(request, "image", 1)
        return image
    raise UnsupportedMediaType(
        f"Content-Type {media_type or 'is missing and'} is not supported; send one of "
        f"{', '.join(sorted(CONTENT_TYPES))}, {MULTIPART} with a field `image`, or {JSON}"
    )


async def read_images(request: Request, limit: int) -> list[bytes]:
    """The images of a batch, in order. Raises `UnsupportedMediaType` or `InvalidRequest`."""
    if _media_type(request) != MULTIPART:
        raise UnsupportedMediaType(f"a batch must be {MULTIPART} with fields `images`")
    return await _read_parts(request, "images", limit)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_body(request: Request) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _from_json(body: bytes) -> bytes:
    if sum(body.count(mark) for mark in _JSON_STRUCTURE) > _JSON_STRUCTURE_LIMIT:
        raise InvalidRequest("body: must be an object with the one key `image`")
    try:
        text = ImageUpload.model_validate_json(body).image
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InvalidRequest(f"{where}: {first['msg']}") from None
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("image: not valid base64") from None


def _boundary(request: Request) -> str:
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("multipart body: Content-Type names no valid boundary")
    return boundary.decode("ascii")


async def _read_parts(request: Request, field: str, limit: int) -> list[bytes]:
    # Nothing but the boundary: a charset of the caller's choice would decode names and texts, and some codecs
    # raise what the parser does not expect, or take time quadratic in the length.
    headers = Headers({"Content-Type": f'{MULTIPART}; boundary="{_boundary(request)}"'})
    parser = _InMemoryParser(headers, request.stream(), max_files=limit + 1, max_fields=limit + 1)
    try:
        form = await parser.parse()
    except ClientDisconnect:
        raise ClientDisconnected from None
    except MultiPartException as error:
        raise InvalidRequest(f"multipart body: {error.message}") from None
    try:
        unknown = [name for name in form if name != field]
        if unknown:
            raise InvalidRequest(f"multipart field {unknown[0]!r} is not known; send {field!r}")
        parts = form.getlist(field)
        if not parts:
            raise InvalidRequest(f"multipart field {field!r} is missing")
        if len(parts) > limit:
            raise InvalidRequest(
                f"multipart field {field!r} came {len(parts)} times; at most {limit} may come"
            )
        files = [part for part in parts if isinstance(part, UploadFile)]
        if len(files) < len(parts):
            raise InvalidRequest(f"multipart field {field!r} must be a file, with a filename")
        return [await file.read() for file in files]
    finally:
        parser.close()
