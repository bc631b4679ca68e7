"""Bodies in all the forms that clients send."""

from __future__ import annotations

import base64
import codecs
import json
import re
import threading

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.api.schemas import ImageUpload
from service.core.errors import InvalidRequest, ServiceError, UnsupportedEncoding, UnsupportedMediaType
from service.http import bodies
from service.http.bodies import read_image, read_images
from service.http.problems import problem_response

IMAGE = bytes(range(256)) * 4
STANDARD = base64.b64encode(IMAGE).decode()
PATTERN = re.compile(ImageUpload.model_json_schema()["properties"]["image"]["pattern"])
MULTIPART = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + IMAGE + b"\r\n"


def request(content_type: str, body: bytes, *encodings: str) -> Request:
    headers = [(b"content-type", content_type.encode())]
    headers += [(b"content-encoding", encoding.encode()) for encoding in encodings]
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)] or [b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def from_json(text: str, before: bytes = b"") -> bytes:
    return await read_image(request("application/json", before + json.dumps({"image": text}).encode()))


@pytest.mark.parametrize(
    "content_type",
    [
        "image/jpeg",
        "application/octet-stream",
        "image/*",
        "image/pjpeg",
        "image/x-png",
        "image/tif",
        "image/vnd.of-a-camera",
        "Image/JPEG; charset=binary",
    ],
)
async def test_the_exact_media_type_of_an_image_does_not_matter(content_type: str) -> None:
    assert await read_image(request(content_type, IMAGE)) == IMAGE


@pytest.mark.parametrize("content_type", ["", "text/plain", "video/mp4", "application/x-www-form-urlencoded"])
async def test_a_media_type_that_is_no_image_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=content_type or "is missing"):
        await read_image(request(content_type, IMAGE))


@pytest.mark.parametrize("encodings", [["gzip"], ["br"], ["identity", "gzip"], ["nonsense"]])
async def test_an_encoding_is_refused_by_name_with_accept_encoding(encodings: list[str]) -> None:
    for read in (
        read_image(request("image/jpeg", b"", *encodings)),
        read_images(request("", b"", *encodings), 2),
    ):
        with pytest.raises(
            UnsupportedEncoding, match=f"Content-Encoding {', '.join(encodings)} is"
        ) as refused:
            await read
        answer = problem_response(refused.value, "id-1")
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
async def test_identity_is_accepted_as_no_encoding(encoding: str) -> None:
    assert await read_image(request("image/jpeg", IMAGE, encoding)) == IMAGE


@pytest.mark.parametrize(
    "text",
    [
        STANDARD,
        base64.encodebytes(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode().replace("\n", "\r\n\t"),
        STANDARD.rstrip("="),
        STANDARD.rstrip("=") + "=",
        base64.urlsafe_b64encode(IMAGE).decode(),
        base64.urlsafe_b64encode(IMAGE).decode().rstrip("="),
        f"data:image/jpeg;base64,{STANDARD}",
        f"DATA:image/jpeg;BASE64,{STANDARD}\n",
        f"data:;base64,{STANDARD}",
    ],
)
async def test_unambiguous_base64_is_accepted(text: str) -> None:
    assert STANDARD.endswith("==")
    assert await from_json(text) == IMAGE
    assert PATTERN.search(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AAAA-AAA/AAA", "mixes the standard and the url-safe alphabet"),
        ("AAAA AAA", "spaces; a form decoder may have replaced + by a space"),
        ("AAAA%2BAA", "percent-encoded"),
        ("AAAAA", "5 characters are not a whole number of bytes"),
        ("QQ==QQ==", "padding before its end"),
        ("QUJD=", "1 padding characters instead of 0"),
        ("QQ===", "3 padding characters instead of 2"),
        ("????", "characters outside the base64 alphabets"),
        ("ééé!", "characters outside the base64 alphabets"),
        ("QUJ\x0bD", "characters outside the base64 alphabets"),
        ("data:image/jpeg;base64", "no comma"),
        ("data:image/jpeg,AAAA", ";base64"),
    ],
)
async def test_ambiguous_or_invalid_base64_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        await from_json(text)
    assert not PATTERN.search(text)


async def test_large_base64_is_decoded_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_SLICE", 8)
    for text in (STANDARD, base64.encodebytes(IMAGE).decode(), STANDARD.rstrip("=")):
        assert await from_json(text) == IMAGE
    assert await from_json("") == b""


async def test_a_byte_order_mark_before_json_is_ignored() -> None:
    assert await from_json(STANDARD, before=codecs.BOM_UTF8) == IMAGE


@pytest.mark.parametrize(
    "body",
    [
        PART + b"--x--\r\n",
        b"\r\n" + PART + b"--x--",
        b"This is a message of several parts.\r\nIt has --x in a line.\r\n" + PART + b"--x--\r\nAnd an end.",
        PART.replace(b'filename="a"', b"filename*=UTF-8''%c3%a4.jpg") + b"--x--",
        PART.replace(b'; filename="a"', b";FileName*0*=UTF-8''%c3%a4; filename*1=.jpg") + b"--x--",
    ],
)
async def test_multipart_is_accepted_in_the_notations_of_clients(body: bytes) -> None:
    assert await read_image(request(MULTIPART, body)) == IMAGE


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (PART, "last boundary is missing"),
        (PART[:-2], "last boundary is missing"),
        (b"--x--\r\n", "field 'image' is missing"),
        (b"no boundary", "not valid"),
        (PART + PART + b"--x--", "more than 1 times"),
        (PART.replace(b"image", b"photo") + b"--x--", "'photo' is not known; send 'image'"),
        (PART.replace(b"image", b"p" * 4000) + b"--x--", "is not known; send 'image'"),
        (PART.replace(b'; filename="a"', b"") + b"--x--", "must be a file, with a filename"),
    ],
)
async def test_invalid_multipart_is_refused_with_the_reason(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        await read_image(request(MULTIPART, body))
    assert len(refused.value.detail) < 200


async def test_a_truncated_batch_is_refused_as_a_whole() -> None:
    part = PART.replace(b'"image"', b'"images"')
    assert await read_images(request(MULTIPART, part * 3 + b"--x--"), 3) == [IMAGE] * 3
    with pytest.raises(InvalidRequest, match="last boundary is missing"):
        await read_images(request(MULTIPART, part * 3), 3)


@pytest.mark.parametrize(("size", "on_loop"), [(1_000, True), (1_000_000, False)])
async def test_only_small_bodies_are_parsed_on_the_event_loop(
    size: int, on_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def recorded(parse: object) -> object:
        def recording_parse(*arguments: object) -> object:
            threads.append(threading.current_thread())
            return parse(*arguments)  # type: ignore[operator]

        return recording_parse

    monkeypatch.setattr(bodies, "_from_json", recorded(bodies._from_json))
    monkeypatch.setattr(bodies._Parts, "parse", recorded(bodies._Parts.parse))
    image = bytes(size)
    assert await from_json(base64.b64encode(image).decode()) == image
    assert await read_image(request(MULTIPART, PART.replace(IMAGE, image) + b"--x--")) == image
    assert [thread is threading.main_thread() for thread in threads] == [on_loop] * 2


async def test_a_body_parsed_off_the_event_loop_can_be_refused() -> None:
    with pytest.raises(ServiceError, match="outside the base64 alphabets"):
        await from_json("?" * 1_000_000)
