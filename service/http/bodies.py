"""Reads images from requests: raw body, multipart field or base64 in JSON. Nothing is written to disk."""

from __future__ import annotations

import asyncio
import binascii
import codecs
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.schemas import ImageUpload
from service.core.errors import InvalidRequest, RequestTimeout, UnsupportedEncoding, UnsupportedMediaType
from service.http.disconnect import ClientDisconnected
from service.vision.formats import CONTENT_TYPES

T = TypeVar("T")

MULTIPART, JSON, OCTETS = "multipart/form-data", "application/json", "application/octet-stream"

# Larger bodies are parsed on a thread: on the event loop they would delay all other requests.
_MAX_BYTES_ON_LOOP = 256_000
# Bytes per slice, a multiple of 4 for base64. Other threads get the interpreter between two slices.
_SLICE = 1 << 18
_LINE_BREAKS = "\r\n\t"
# Characters that are not base64 and have no error message of their own.
_FOREIGN = re.compile(r"[^A-Za-z0-9+/_\-=% \r\n\t]")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")

# RFC 2046, 5.1.1
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
# RFC 7578 forbids `filename*`. Some clients still send only `filename*` if the name is not ASCII.
_EXTENDED_FILENAME = re.compile(rb";\s*filename\*[0-9]*\*?=", re.IGNORECASE)
_SHOWN_NAME = 64
# A valid body has few of these marks. A million of them would take half a minute to parse and refuse.
_JSON_STRUCTURE = (b"[", b"{", b",", b":")
_JSON_STRUCTURE_LIMIT = 256


async def read_image(request: Request) -> bytes:
    """The one image of a request. Raises `UnsupportedMediaType` or `InvalidRequest`."""
    _check_encoding(request)
    media_type = _media_type(request)
    if media_type in CONTENT_TYPES or media_type.startswith("image/"):
        return await _read_body(request)
    if media_type == JSON:
        return await _parsed(_from_json, await _read_body(request))
    if media_type == MULTIPART:
        (image,) = await _read_parts(request, "image", 1)
        return image
    raise UnsupportedMediaType(
        f"Content-Type {media_type or 'is missing and'} is not supported; send one of "
        f"{', '.join(sorted(CONTENT_TYPES))}, {MULTIPART} with a field `image`, or {JSON}"
    )


async def read_images(request: Request, limit: int) -> list[bytes]:
    """The images of a batch, in order. Raises `UnsupportedMediaType` or `InvalidRequest`."""
    _check_encoding(request)
    if _media_type(request) != MULTIPART:
        raise UnsupportedMediaType(f"a batch must be {MULTIPART} with fields `images`")
    return await _read_parts(request, "images", limit)


def _check_encoding(request: Request) -> None:
    encoding = ", ".join(request.headers.getlist("content-encoding")).strip()
    if encoding.lower() not in ("", "identity"):
        raise UnsupportedEncoding(f"Content-Encoding {encoding} is not supported; send the body as it is")


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


async def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    return parse(body) if len(body) <= _MAX_BYTES_ON_LOOP else await asyncio.to_thread(parse, body)


def _from_json(body: bytes) -> bytes:
    if sum(body.count(mark) for mark in _JSON_STRUCTURE) > _JSON_STRUCTURE_LIMIT:
        raise InvalidRequest("body: must be an object with the single key `image`")
    try:
        text = ImageUpload.model_validate_json(body.removeprefix(codecs.BOM_UTF8)).image
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InvalidRequest(f"{where}: {first['msg']}") from None
    text = text.strip(_LINE_BREAKS)
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma:
            raise InvalidRequest("image: the data URL has no comma and no data")
        if not head.lower().endswith(";base64"):
            raise InvalidRequest("image: the data URL is not base64: `;base64` is missing before the comma")
    return _from_base64(text)


def _from_base64(text: str) -> bytes:
    """Decode base64 (RFC 4648). Line breaks, the url-safe alphabet and missing padding are accepted.

    Raises `InvalidRequest` with the reason if the text is ambiguous or not base64.
    """
    data = text.rstrip("=" + _LINE_BREAKS)
    padding = text.count("=", len(data))
    characters = len(data) - sum(map(data.count, _LINE_BREAKS))
    flaw = None
    if "%" in data:
        flaw = "it is percent-encoded"
    elif " " in data:
        flaw = "it has spaces; a form decoder may have replaced + by a space"
    elif "=" in data:
        flaw = "it has padding before its end"
    elif ("-" in data or "_" in data) and ("+" in data or "/" in data):
        flaw = "it mixes the standard and the url-safe alphabet"
    elif characters % 4 == 1:
        flaw = f"{characters} characters are not a whole number of bytes, so it was cut short"
    elif padding > -characters % 4:
        flaw = f"it has {padding} padding characters instead of {-characters % 4}"
    if flaw is not None and _has_foreign(data):
        flaw = "it has characters outside the base64 alphabets"
    if flaw is not None:
        raise InvalidRequest(f"image: not valid base64: {flaw}")
    decoded: list[bytes] = []
    rest = b""
    try:
        for start in range(0, len(data), _SLICE):
            piece = data[start : start + _SLICE].encode("ascii")
            rest += piece.translate(_FROM_URL_SAFE, _LINE_BREAKS.encode())
            whole = len(rest) - len(rest) % 4
            decoded.append(binascii.a2b_base64(rest[:whole], strict_mode=True))
            rest = rest[whole:]
        decoded.append(binascii.a2b_base64(rest + b"=" * (-len(rest) % 4), strict_mode=True))
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidRequest(
            "image: not valid base64: it has characters outside the base64 alphabets"
        ) from None
    return b"".join(decoded)


def _has_foreign(data: str) -> bool:
    return any(_FOREIGN.search(data, start, start + _SLICE) for start in range(0, len(data), _SLICE))


def _boundary(request: Request) -> bytes:
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("multipart body: Content-Type has no valid boundary")
    return boundary


async def _read_parts(request: Request, field: str, limit: int) -> list[bytes]:
    parts = _Parts(_boundary(request), field, limit)
    return await _parsed(parts.parse, await _read_body(request))


async def read_video(request: Request, write: Callable[[bytes], Awaitable[None]], idle_s: float) -> None:
    """Pass the one video of a request to `write`, part by part.

    idle_s: how long the client may send nothing. Raises `UnsupportedMediaType`, `InvalidRequest` or
    `RequestTimeout`, and what `write` raises.
    """
    _check_encoding(request)
    media_type = _media_type(request)
    if media_type == MULTIPART:
        form = _Parts(_boundary(request), "video", 1)
        async for data in _body_parts(request, idle_s):
            form.feed(data)
            if part := form.taken():
                await write(part)
        form.end()
    elif media_type == OCTETS or media_type.startswith("video/"):
        async for data in _body_parts(request, idle_s):
            await write(data)
    else:
        raise UnsupportedMediaType(
            f"Content-Type {media_type or 'is missing and'} is not supported; send a video type, {OCTETS} "
            f"or {MULTIPART} with a field `video`"
        )


async def _body_parts(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(idle_s):
                message = await request.receive()
        except TimeoutError:
            raise RequestTimeout(f"nothing was sent for {idle_s:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        if data := message.get("body", b""):
            yield data
        if not message.get("more_body"):
            return


class _Parts:
    """Parses a multipart form (RFC 7578) whose only field is `field`."""

    def __init__(self, boundary: bytes, field: str, limit: int) -> None:
        self._boundary = boundary
        self._field = field
        self._limit = limit
        self._files: list[bytes] = []
        self._found = 0
        self._data: list[bytes] = []
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._check_part,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Raises `InvalidRequest`."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise InvalidRequest("multipart body: not valid") from None

    def taken(self) -> bytes:
        """What has arrived of the file since the last call."""
        data, self._data = b"".join(self._data), []
        return data

    def end(self) -> None:
        """Raises `InvalidRequest` if the form is not complete."""
        try:
            self._parser.finalize()
        except FormParserError:
            raise InvalidRequest("multipart body: not valid") from None
        if not self._ended:
            raise InvalidRequest("multipart body: cut short, or its last boundary is missing")
        if not self._found:
            raise InvalidRequest(f"multipart field {self._field!r} is missing")

    def parse(self, body: bytes) -> list[bytes]:
        """The files of a whole body. Raises `InvalidRequest`."""
        # In slices: one search through a whole hostile body would hold the interpreter's lock.
        for start in range(self._preamble_bytes(body), len(body), _SLICE):
            self.feed(body[start : start + _SLICE])
        self.end()
        return self._files

    def _preamble_bytes(self, body: bytes) -> int:
        """Length of the text before the first boundary. RFC 2046 ignores this text, the library does not."""
        delimiter = b"--" + self._boundary
        if body.startswith(delimiter):
            return 0
        first = b"\r\n" + delimiter
        for start in range(0, len(body), _SLICE):
            found = body.find(first, start, start + _SLICE + len(first))
            if found >= 0:
                return found
        return 0

    def _begin_part(self) -> None:
        self._disposition = b""
        self._data = []

    def _begin_header(self) -> None:
        self._name = self._value = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value

    def _check_part(self) -> None:
        # Refused here, before thousands of parts are in memory.
        options = parse_options_header(self._disposition)[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")[:_SHOWN_NAME]
        if name != self._field:
            raise InvalidRequest(f"multipart field {name!r} is not known; send {self._field!r}")
        if b"filename" not in options and not _EXTENDED_FILENAME.search(self._disposition):
            raise InvalidRequest(f"multipart field {name!r} must be a file, with a filename")
        if self._found == self._limit:
            raise InvalidRequest(f"multipart field {name!r} came more than {self._limit} times")
        self._found += 1

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end_part(self) -> None:
        self._files.append(b"".join(self._data))

    def _end(self) -> None:
        self._ended = True
