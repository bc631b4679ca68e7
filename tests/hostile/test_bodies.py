"""Hostile multipart, JSON and base64 bodies that contain no image. The service refuses each at once."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator

import pytest

from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.fake_engine import fake_engines

MULTIPART = "multipart/form-data; boundary=x"
FILE = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
FIELD = b'--x\r\nContent-Disposition: form-data; name="image"\r\n'
END = b"\r\n--x--\r\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with serving(Settings(port=0), fake_engines()) as gateway:
        yield gateway


BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "5,000 files": (MULTIPART, lambda: (FILE + b"\r\na\r\n") * 5000 + END),
    "5,000 fields": (MULTIPART, lambda: (FIELD + b"\r\na\r\n") * 5000 + END),
    "5,000 headers of a part": (MULTIPART, lambda: FILE + b"A: b\r\n" * 5000 + b"\r\na" + END),
    "5 MB header of a part": (MULTIPART, lambda: FILE + b"A: " + b"b" * 5_000_000 + b"\r\n\r\na" + END),
    "5 MB file name": (
        MULTIPART,
        lambda: FILE.replace(b'"a"', b'"' + b"a" * 5_000_000 + b'"') + b"\r\na" + END,
    ),
    "parts inside of a part": (
        MULTIPART,
        lambda: FILE + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + FILE * 1000 + END,
    ),
    "almost boundaries": (MULTIPART, lambda: FILE + b"\r\n" + b"\r\n--" * 1_000_000 + END),
    "no end": (MULTIPART, lambda: FILE + b"\r\n" + b"a" * 1_000_000),
    "no boundary": ("multipart/form-data", lambda: FILE),
    "empty boundary": ('multipart/form-data; boundary=""', lambda: FILE),
    "boundary of 10,000": ("multipart/form-data; boundary=" + "x" * 10_000, lambda: FILE),
    "boundary not ASCII": ("multipart/form-data; boundary=\xe9", lambda: FILE),
    "charset that raises": (MULTIPART + "; charset=undefined", lambda: FIELD + b"\r\n\xff" + END),
    "charset that takes long": (
        MULTIPART + "; charset=punycode",
        lambda: FIELD + b"\r\na-" + b"z9" * 400_000 + END,
    ),
    "charset of packed bytes": (MULTIPART + "; charset=zlib", lambda: FIELD + b"\r\n\xff" + END),
    "1,000,000 keys": (
        "application/json",
        lambda: b"{" + b",".join(b'"%d":0' % number for number in range(1_000_000)) + b"}",
    ),
    "6,000,000 lists": ("application/json", lambda: b'{"image":[' + b"[]," * 6_000_000 + b"[]]}"),
    "100,000 deep": ("application/json", lambda: b'{"image":' * 100_000),
    "100,000 lists deep": ("application/json", lambda: b"[" * 100_000 + b"]" * 100_000),
    "a number of 10 MB": ("application/json", lambda: b'{"image":' + b"9" * 10_000_000 + b"}"),
    "1e999999": ("application/json", lambda: b'{"image":1e999999}'),
    "a key of 10 MB": ("application/json", lambda: b'{"' + b"a" * 10_000_000 + b'":0}'),
    "the key 100 times": ("application/json", lambda: b"{" + b",".join([b'"image":"QUJD"'] * 100) + b"}"),
    "surrogates": ("application/json", lambda: b'{"image":"\\ud800"}'),
    "not UTF-8": ("application/json", lambda: b'{"image":"\xff\xfe"}'),
    "NUL": ("application/json", lambda: b'{"image":"\\u0000"}'),
    "base64 of 14 MB of zeros": (
        "application/json",
        lambda: b'{"image":"' + base64.b64encode(bytes(14_000_000)) + b'"}',
    ),
    "base64 that is escaped": ("application/json", lambda: b'{"image":"' + b"\\u0041" * 3_000_000 + b'"}'),
    "10 MB of =": ("application/json", lambda: b'{"image":"' + b"=" * 10_000_000 + b'"}'),
    "10 MB of spaces": ("application/json", lambda: b" " * 10_000_000),
    "data URL without data": ("application/json", lambda: b'{"image":"data:' + b"x" * 10_000_000 + b'"}'),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_without_an_image_is_refused_at_once(gateway: Gateway, name: str) -> None:
    media_type, make = BODIES[name]
    body = make()
    cpu_before_s = time.process_time()
    response = gateway.client.post(
        "/v1/emotions", content=body, headers={b"Content-Type": media_type.encode("latin-1")}
    )
    assert (response.status_code, response.json()["code"]) in {
        (400, "invalid_image"),
        (422, "invalid_request"),
    }
    assert len(response.content) < 1000
    # CPU time of server and client together. Without limits, some bodies block the event loop for half a
    # minute.
    assert time.process_time() - cpu_before_s < 4


def test_a_slash_may_be_escaped(gateway: Gateway, faceless_jpeg: bytes) -> None:
    text = base64.b64encode(faceless_jpeg).replace(b"/", b"\\/")
    headers = {"Content-Type": "application/json"}
    response = gateway.client.post("/v1/emotions", content=b'{"image":"' + text + b'"}', headers=headers)
    assert response.status_code == 200


def test_a_boundary_may_be_quoted(gateway: Gateway, faceless_jpeg: bytes) -> None:
    boundary = "a'()+_,-./:=? b"
    body = FILE.replace(b"--x", b"--" + boundary.encode()) + b"\r\n" + faceless_jpeg
    body += b"\r\n--" + boundary.encode() + b"--\r\n"
    headers = {"Content-Type": f'multipart/form-data; charset=undefined; boundary="{boundary}"'}
    assert gateway.client.post("/v1/emotions", content=body, headers=headers).status_code == 200
