"""The three forms in which an image arrives: raw body, multipart field, base64 in JSON; never on disk."""

from __future__ import annotations

import base64
import binascii
import sys

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import InvalidRequest, UnsupportedMediaType
from service.http.disconnect import ClientDisconnected
from service.schemas import ImageUpload
from service.vision.decode import CONTENT_TYPES

MULTIPART, JSON = "multipart/form-data", "application/json"


class _InMemoryParser(MultiPartParser):
    """Starlette's parser spools parts above 1 MB to disk; the body's own limit bounds memory here."""

    spool_max_size = sys.maxsize


async def read_image(request: Request) -> bytes:
    """The one image of a request. Raises `UnsupportedMediaType` or `InvalidRequest`."""
    media_type = _media_type(request)
    if media_type in CONTENT_TYPES:
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
    try:
        return await request.body()
    except ClientDisconnect:
        raise ClientDisconnected from None


def _from_json(body: bytes) -> bytes:
    try:
        text = ImageUpload.model_validate_json(body).image
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InvalidRequest(f"{where}: {first['msg']}") from None
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("image: not valid base64") from None


async def _read_parts(request: Request, field: str, limit: int) -> list[bytes]:
    parser = _InMemoryParser(request.headers, request.stream(), max_files=limit + 1, max_fields=limit + 1)
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
        await form.close()
