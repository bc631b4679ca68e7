"""Clients abuse their connections. A real gateway process still serves all other clients."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from service.http.transport.connections import HEAD_LIMIT_BYTES
from tests.conftest import OPTIONAL, encoded, eventually
from tests.hostile.bombs import SLOW
from tests.hostile.clients import Trickle, connect, exchange, head, read_all, statuses
from tests.system.conftest import Process, running

LIVE = head(method="GET", path="/livez")
JPEG = "Content-Type: image/jpeg"
SAFE = (
    b"cache-control: no-store",
    b"content-security-policy: default-src 'none'",
    b"referrer-policy: no-referrer",
    b"x-content-type-options: nosniff",
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Process]:
    with running(
        max_connections=40,
        max_streams=16,
        client_timeout_s=1.5,
        timeout_s=10,
        max_in_flight_requests=8,
        decode_budget_s=1,
        worker_threads=2,
    ) as process:
        yield process
        assert process.stop() == 0
    tracebacks = [line for line in process.log if "Traceback" in line]
    assert not tracebacks, tracebacks[0]


@pytest.fixture(autouse=True)
def check_recovery(gateway: Process, faceless_jpeg: bytes) -> Iterator[None]:
    """After a test, the gateway answers. It has no request in flight, no lost descriptor, no answer 500."""
    gateway.post(faceless_jpeg)
    descriptors = psutil.Process(gateway.process.pid).num_fds()
    yield
    gateway.reconnect()
    assert gateway.post(faceless_jpeg).status_code == 200
    eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 0)
    eventually(lambda: gateway.metric("expressnet_connections") == 1)
    eventually(lambda: psutil.Process(gateway.process.pid).num_fds() <= descriptors)
    assert 'status="500"' not in gateway.client.get("/metrics").text


def problem(answer: bytes) -> tuple[int, str]:
    """The status and the code of a problem document, after a check of its headers."""
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in headers
    for header in SAFE:
        assert header in headers
    parsed = json.loads(body)
    assert parsed["request_id"].encode() in headers
    return parsed["status"], parsed["code"]


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA\0B: c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA: b\0c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: t\r\n\r\n",
        b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n",
        head(JPEG, "Content-Length: -1"),
        head(JPEG, "Content-Length: 1e3"),
        head(JPEG, f"Content-Length: {10**30}"),
        head(JPEG, "Content-Length: 5", "Content-Length: 6") + b"aaaaaa",
        head(JPEG, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + LIVE,
        head(JPEG, "Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n" + LIVE,
        head(JPEG, "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + LIVE,
        head(JPEG, "Transfer-Encoding: xchunked") + b"0\r\n\r\n" + LIVE,
        head(JPEG, "Transfer-Encoding: chunked") + b"zz\r\nabc\r\n",
        head(JPEG, "Transfer-Encoding: chunked") + b"-1\r\nabc\r\n",
        head(JPEG, "Transfer-Encoding: chunked") + b"f" * 40 + b"\r\nabc\r\n",
        head(JPEG, "Transfer-Encoding: chunked") + b"3\r\nabcd\r\n0\r\n\r\n",
    ],
    ids=range(24),
)
def test_invalid_http_gets_one_answer(gateway: Process, sent: bytes) -> None:
    """A second answer would mean that the gateway has served a smuggled request."""
    answer = exchange(gateway.url, sent)
    assert len(statuses(answer)) <= 1, answer
    assert 400 <= statuses(answer)[0] < 500


def test_invalid_http_gets_a_problem_document(gateway: Process) -> None:
    before = gateway.metric('expressnet_cut_connections_total{reason="malformed"}')
    assert problem(exchange(gateway.url, b"hello\r\n\r\n")) == (400, "malformed_request")
    assert gateway.metric('expressnet_cut_connections_total{reason="malformed"}') == before + 1


@pytest.mark.parametrize(
    "sent",
    [
        head("A: " + "b" * HEAD_LIMIT_BYTES, method="GET", path="/livez"),
        head(*[f"A{n}: b" for n in range(5000)], method="GET", path="/livez"),
        head(method="GET", path="/livez?" + "a" * HEAD_LIMIT_BYTES),
        b"GET /livez HTTP/1.1\r\nA: " + b"b" * 5_000_000,
        b"GET /" + b"b" * 5_000_000,
    ],
    ids=["value", "many", "path", "endless value", "endless path"],
)
def test_a_large_head_is_refused_before_its_end(gateway: Process, sent: bytes) -> None:
    rss = psutil.Process(gateway.process.pid).memory_info().rss
    answer = exchange(gateway.url, sent)
    # A client that still sends when the gateway closes may lose the answer.
    assert not answer or problem(answer) == (431, "head_too_large")
    assert psutil.Process(gateway.process.pid).memory_info().rss - rss < 20e6


def test_a_head_of_usual_size_is_accepted(gateway: Process) -> None:
    sent = head("Authorization: Bearer " + "x" * 8000, "Connection: close", method="GET", path="/livez")
    assert statuses(exchange(gateway.url, sent)) == [200]


@pytest.mark.parametrize(
    "path",
    [
        "/%00",
        "/static-offline-docs/%00",
        "/static-offline-docs/..%2f..%2fetc/passwd",
        "/static-offline-docs/" + "a" * 5000,
        "/v1/models/%ff%fe",
        "/v1/models/" + "%2e%2e%2f" * 50,
        "//etc",
        "/%",
        "*",
        "http://elsewhere/livez",
        "/livez?" + "&".join(f"{n}=%00" for n in range(3000)),
    ],
    ids=range(11),
)
def test_odd_paths_are_answered(gateway: Process, path: str) -> None:
    (status,) = statuses(exchange(gateway.url, head("Connection: close", method="GET", path=path)))
    assert status in (200, 400, 404)


@pytest.mark.parametrize(
    "path",
    ["/v1/emotions?" + "&".join(f"{n}=%00" for n in range(3000)), "/v1/emotions?max_faces=" + "9" * 9000],
)
def test_odd_queries_are_refused(gateway: Process, path: str) -> None:
    sent = head(JPEG, "Content-Length: 1", "Connection: close", path=path) + b"x"
    assert problem(exchange(gateway.url, sent)) == (422, "invalid_request")


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.2"])
@pytest.mark.parametrize("pieces", [1, 7], ids=["whole", "in pieces"])
def test_an_upgrade_is_ignored(gateway: Process, upgrade: str, pieces: int, faceless_jpeg: bytes) -> None:
    """RFC 9110, 7.8, allows this. A request may have a body, which parsers of upgrades skip."""
    upgrading = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABk")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(faceless_jpeg), faceless_jpeg)
    sent = b"".join(
        [
            head(*upgrading, key, "Sec-WebSocket-Version: 13", method="GET", path="/livez"),
            head(*upgrading, JPEG, f"Content-Length: {len(faceless_jpeg)}") + faceless_jpeg,
            head(*upgrading, JPEG, "Transfer-Encoding: chunked") + chunked,
            head("Connection: close, Upgrade", f"Upgrade: {upgrade}", method="GET", path="/livez"),
        ]
    )
    step = len(sent) // pieces + 1
    answer = exchange(gateway.url, *(sent[at : at + step] for at in range(0, len(sent), step)))
    assert statuses(answer) == [200] * 4
    assert answer.count(b'"faces":[]') == 2


def test_thousands_of_upgrades_are_answered_in_order(gateway: Process) -> None:
    request = head("Connection: Upgrade", "Upgrade: h2c", method="GET", path="/v1/models/0")
    last = head("Connection: close", method="GET", path="/livez")
    assert statuses(exchange(gateway.url, request * 2000 + last)) == [404] * 2000 + [200]


@pytest.mark.skipif(shutil.which("curl") is None, reason=f"curl, {OPTIONAL}")
def test_curl_may_offer_http2(gateway: Process, faceless_jpeg: bytes) -> None:
    command = ["curl", "-sS", "--http2", "-H", JPEG, "--data-binary", "@-", f"{gateway.url}/v1/emotions"]
    answer = subprocess.run(command, input=faceless_jpeg, capture_output=True, timeout=30, check=True)
    assert json.loads(answer.stdout)["faces"] == []


def test_pipelined_requests_are_answered_in_order(gateway: Process) -> None:
    paths = [head(method="GET", path=f"/v1/models/{n}") for n in range(300)]
    answer = exchange(gateway.url, *paths, head("Connection: close", method="GET", path="/livez"))
    assert statuses(answer) == [404] * 300 + [200]


def test_a_client_that_expects_100_continue_gets_it_before_the_answer(
    gateway: Process, faceless_jpeg: bytes
) -> None:
    length = f"Content-Length: {len(faceless_jpeg)}"
    with connect(gateway.url) as connection:
        connection.sendall(head(JPEG, length, "Expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(faceless_jpeg)
        assert statuses(connection.recv(65536)) == [200]


def test_a_disconnect_after_a_large_upload_is_noticed(gateway: Process) -> None:
    disconnected = 'expressnet_http_requests_total{method="POST",route="/v1/emotions",status="499"}'
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    large = encoded(noise)
    assert len(large) > 2 << 20  # far more than the server reads before the route does
    before = gateway.metric(disconnected)
    with connect(gateway.url) as connection:
        connection.sendall(head(JPEG, f"Content-Length: {len(large)}") + large)
    eventually(lambda: gateway.metric(disconnected) == before + 1)


def test_an_answer_without_a_body_does_not_wait_for_one(gateway: Process) -> None:
    with connect(gateway.url) as connection:
        connection.sendall(head(method="HEAD", path="/livez"))
        assert statuses(connection.recv(65536)) == [200]


def test_trailers_are_not_headers(gateway: Process, faceless_jpeg: bytes) -> None:
    chunk = b"%x\r\n" % len(faceless_jpeg) + faceless_jpeg + b"\r\n0\r\n"
    trailers = b"X-Request-ID: forged\r\n" + b"A: b\r\n" * 10_000 + b"\r\n"
    sent = (
        head(JPEG, "Transfer-Encoding: chunked", "X-Request-ID: mine", "Connection: close") + chunk + trailers
    )
    answer = exchange(gateway.url, sent)
    assert statuses(answer) == [200]
    assert b"x-request-id: mine" in answer


@pytest.mark.parametrize(
    ("opening", "piece"),
    [
        (b"", b""),
        (b"GET /livez HTTP/1.1\r\n", b"A: b\r\n"),
        (b"GET /livez HTTP/1.1\r\nA: ", b"b"),
        (b"", b"\r\n"),
        (head("Content-Length: 1000000", method="GET", path="/livez"), b"x"),
        (head(JPEG, "Content-Length: 1000000"), b"x"),
        (head("Content-Type: multipart/form-data; boundary=x", "Content-Length: 1000000"), b"-"),
        (head(JPEG, "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    ],
    ids=["silent", "headers", "one header", "blank lines", "body of a GET", "body", "multipart", "chunks"],
)
def test_other_clients_are_served_while_many_send_slowly(
    gateway: Process, opening: bytes, piece: bytes, faceless_jpeg: bytes
) -> None:
    """There are more attackers than allowed connections, and more bodies than allowed requests in flight."""
    gateway.client.close()  # each request below opens a connection of its own
    attackers = Trickle(gateway.url, 60, opening, piece)
    answered = []
    try:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            attackers.send_piece()
            sent = head(JPEG, f"Content-Length: {len(faceless_jpeg)}", "Connection: close") + faceless_jpeg
            answered += statuses(exchange(gateway.url, sent))
            time.sleep(0.1)
    finally:
        attackers.close()
    gateway.reconnect()
    assert len(answered) > 3
    assert set(answered) == {200}
    assert attackers.reconnects > 20


def test_a_late_head_gets_408(gateway: Process) -> None:
    assert problem(exchange(gateway.url, b"GET /livez HTTP/1.1\r\nA: ")) == (408, "request_timeout")


def test_clients_that_do_not_read_are_disconnected(gateway: Process, faceless_jpeg: bytes) -> None:
    unread = 'expressnet_cut_connections_total{reason="unread"}'
    script = head(method="GET", path="/static-offline-docs/swagger-ui-bundle.js")
    connections = [connect(gateway.url, receive_bytes=4096) for _ in range(30)]
    try:
        before = gateway.metric(unread)
        for connection in connections:
            connection.sendall(script * 5)
        assert gateway.post(faceless_jpeg).status_code == 200
        eventually(lambda: gateway.metric(unread) == before + len(connections))
        eventually(lambda: gateway.metric("expressnet_connections") == 1)
    finally:
        for connection in connections:
            connection.close()


def test_half_open_connections_are_closed(gateway: Process) -> None:
    """The client ends its sending half of the connection and keeps the receiving half open."""
    with connect(gateway.url) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        connection.shutdown(1)
        read_all(connection)
        eventually(lambda: gateway.metric("expressnet_connections") == 1)


@pytest.mark.alone
def test_images_that_take_too_long_do_not_block_the_workers(gateway: Process, faceless_jpeg: bytes) -> None:
    slow = SLOW["tiff jpeg of 36 megapixels, 90 scans"]()
    abandoned = gateway.metric("expressnet_abandoned_images_total")
    sent = head("Content-Type: image/tiff", f"Content-Length: {len(slow)}", "Connection: close") + slow
    attackers = [connect(gateway.url) for _ in range(2)]
    for connection in attackers:
        connection.sendall(sent)
    answers = []
    for connection in attackers:
        answers.append(read_all(connection, 30))
        connection.close()
    # If other work uses the cores, the code is `host_busy`.
    assert {problem(answer) for answer in answers} <= {(422, "image_too_complex"), (503, "host_busy")}
    # Both threads still decode these images. Two new threads have replaced them.
    assert gateway.metric("expressnet_abandoned_images_total") == abandoned + 2
    assert [gateway.post(faceless_jpeg).status_code for _ in range(10)] == [200] * 10
