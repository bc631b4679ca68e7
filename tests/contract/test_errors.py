"""Bad input gets the documented error, and the service still answers afterwards."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import zlib
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import Gateway, encoded, eventually

JPEG = {"Content-Type": "image/jpeg"}


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header states this size. Its checksums are valid, but it has too few pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


def assert_problem(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert not re.search(r"Traceback|\.py|site-packages|Error\b|(^| )/", problem["detail"])
    detail: str = problem["detail"]
    return detail


@pytest.fixture(autouse=True)
def answers_afterwards(gateway: Gateway, faceless_jpeg: bytes) -> object:
    yield
    assert gateway.post(faceless_jpeg).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"this is text, not a photo", b"\xff\xd8\xff\xe0 and then nothing", b"\0" * 1000],
    ids=["empty", "text", "jpeg-marker", "zeros"],
)
def test_not_an_image(gateway: Gateway, body: bytes) -> None:
    assert_problem(gateway.post(body), 400, "invalid_image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(gateway: Gateway, astronaut: NDArray[np.uint8], kind: str) -> None:
    whole = encoded(astronaut, kind)
    for share in (0.01, 0.3, 0.6, 0.95):
        cut = whole[: int(len(whole) * share)]
        assert_problem(gateway.post(cut, media_type=f"image/{kind.lower()}"), 400, "invalid_image")


def test_header_claims_too_many_pixels(gateway: Gateway) -> None:
    detail = assert_problem(
        gateway.post(png_claiming(60_000, 60_000), media_type="image/png"), 413, "image_too_large"
    )
    assert "60000 x 60000" in detail


def test_body_too_large(gateway: Gateway) -> None:
    assert_problem(gateway.post(b"\0" * 30_000_000), 413, "body_too_large")


def test_body_too_large_without_a_length(gateway: Gateway) -> None:
    chunks = (b"\0" * 1_000_000 for _ in range(30))
    response = gateway.client.post("/v1/emotions", content=chunks, headers=JPEG)
    assert_problem(response, 413, "body_too_large")


@pytest.mark.parametrize("media_type", ["text/plain", "video/mp4", ""])
def test_wrong_content_type(gateway: Gateway, astronaut_jpeg: bytes, media_type: str) -> None:
    response = gateway.client.post(
        "/v1/emotions", content=astronaut_jpeg, headers={"Content-Type": media_type}
    )
    assert_problem(response, 415, "unsupported_media_type")


def test_image_format_that_is_not_supported(gateway: Gateway) -> None:
    icon = io.BytesIO()
    Image.new("RGB", (32, 32)).save(icon, "ICO")
    assert_problem(gateway.post(icon.getvalue()), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (b"garbage", "x"),
        (b"--x\r\nContent-Disp", "x"),
        (b"--x--\r\n", "x"),
        (b"--x\r\n\r\nhi\r\n--x--\r\n", "x"),
    ],
)
def test_broken_multipart(gateway: Gateway, body: bytes, boundary: str) -> None:
    response = gateway.client.post(
        "/v1/emotions",
        content=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    assert_problem(response, 422, "invalid_request")


def test_multipart_without_boundary(gateway: Gateway) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    response = gateway.client.post("/v1/emotions", content=b"--x--", headers=headers)
    assert_problem(response, 422, "invalid_request")


@pytest.mark.parametrize("fields", [["image", "image"], ["photo"], ["image", "photo"]])
def test_wrong_multipart_fields(gateway: Gateway, astronaut_jpeg: bytes, fields: list[str]) -> None:
    files = [(field, ("a.jpg", astronaut_jpeg)) for field in fields]
    response = gateway.client.post("/v1/emotions", files=files)
    assert "image" in assert_problem(response, 422, "invalid_request")


def test_multipart_text_field_is_not_a_file(gateway: Gateway) -> None:
    response = gateway.client.post("/v1/emotions", files={"image": (None, b"abc")})
    assert "file" in assert_problem(response, 422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b'{"image": "%%%"}',
        b'{"image": "QUJDQ"}',
        b'{"image": 7}',
        b"{}",
        b"[]",
        b"{",
        b"",
        b'{"image": "QUJD", "more": 1}',
        b"[" * 100_000,
        b'{"image": "\xff"}',
    ],
)
def test_bad_json(gateway: Gateway, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert_problem(gateway.client.post("/v1/emotions", content=body, headers=headers), 422, "invalid_request")


def test_base64_that_is_no_image(gateway: Gateway) -> None:
    body = {"image": base64.b64encode(b"not an image").decode()}
    assert_problem(gateway.client.post("/v1/emotions", json=body), 400, "invalid_image")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"max_faces": "-1"}, "max_faces"),
        ({"max_faces": "0"}, "max_faces"),
        ({"max_faces": "many"}, "max_faces"),
        ({"min_face_px": "0"}, "min_face_px"),
        ({"min_face_px": "nan"}, "min_face_px"),
        ({"min_detection_confidence": "1.5"}, "min_detection_confidence"),
        ({"min_detection_confidence": "inf"}, "min_detection_confidence"),
        ({"detect": "perhaps"}, "detect"),
        ({"include": "soul"}, "include"),
        ({"include": "landmarks,soul"}, "include"),
        ({"prior": "uniform"}, "prior"),
        ({"prior": "joy=1"}, "prior"),
        ({"prior": "fear=-1"}, "prior"),
        ({"prior": "fear=0"}, "prior"),
        ({"maxfaces": "3"}, "maxfaces"),
    ],
)
def test_bad_query(gateway: Gateway, astronaut_jpeg: bytes, query: dict[str, str], parameter: str) -> None:
    assert parameter in assert_problem(gateway.post(astronaut_jpeg, **query), 422, "invalid_request")


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", "9" * 30, "٣"])
def test_bad_timeout(gateway: Gateway, astronaut_jpeg: bytes, value: str) -> None:
    response = gateway.client.post(
        "/v1/emotions",
        content=astronaut_jpeg,
        headers=[(b"Content-Type", b"image/jpeg"), (b"X-Timeout-Ms", value.encode())],
    )
    assert "X-Timeout-Ms" in assert_problem(response, 422, "invalid_request")


def test_deadline(gateway: Gateway, astronaut: NDArray[np.uint8]) -> None:
    montage = encoded(np.tile(astronaut, (6, 6, 1)))
    response = gateway.client.post("/v1/emotions", content=montage, headers=JPEG | {"X-Timeout-Ms": "1"})
    assert_problem(response, 504, "deadline_exceeded")


def test_batch_of_too_many_images_or_without_multipart(gateway: Gateway, faceless_jpeg: bytes) -> None:
    too_many = [("images", (f"{i}.jpg", faceless_jpeg)) for i in range(33)]
    response = gateway.client.post("/v1/emotions/batch", files=too_many)
    assert "32" in assert_problem(response, 422, "invalid_request")
    response = gateway.client.post("/v1/emotions/batch", content=faceless_jpeg, headers=JPEG)
    assert_problem(response, 415, "unsupported_media_type")


def test_unknown_path_and_method(gateway: Gateway) -> None:
    assert_problem(gateway.client.get("/v1/nothing"), 404, "not_found")
    assert_problem(gateway.client.get("/v1/emotions"), 405, "method_not_allowed")
    assert_problem(gateway.client.get("/v1/models/nothing"), 404, "not_found")


def raw_connection(gateway: Gateway) -> socket.socket:
    address = urlsplit(gateway.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=30)


def request_head(length: int, *more: str) -> bytes:
    lines = [
        "POST /v1/emotions HTTP/1.1",
        "Host: test",
        "Content-Type: image/jpeg",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def test_content_length_longer_than_the_body(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    with raw_connection(gateway) as connection:
        connection.sendall(request_head(len(astronaut_jpeg) + 100, "X-Timeout-Ms: 300") + astronaut_jpeg)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 504")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "deadline_exceeded"


def test_content_length_shorter_than_the_body(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    with raw_connection(gateway) as connection:
        connection.sendall(request_head(len(astronaut_jpeg) // 2) + astronaut_jpeg)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400")


def test_client_that_disconnects_during_the_body(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    disconnects = 'expressnet_http_requests_total{method="POST",route="/v1/emotions",status="499"}'
    before = gateway.metric(disconnects)
    with raw_connection(gateway) as connection:
        connection.sendall(request_head(len(astronaut_jpeg)) + astronaut_jpeg[:1000])
    eventually(lambda: gateway.metric(disconnects) == before + 1)
    assert gateway.metric("expressnet_requests_in_flight") == 0
