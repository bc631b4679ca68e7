"""Streams with scripted engines, a real server and a real WebSocket client."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.access.keys_file import add_key, remove_key
from service.access.scopes import Scope
from service.core.arrays import Detections
from service.http.routes.frames import Frame
from service.http.routes.stream import GOING_AWAY, IDLE, POLICY, SUBPROTOCOL, Stream
from service.http.transport.sockets import PIECES
from service.serving.server import bind
from service.settings import Settings
from service.tracking.tracks import Tracker
from tests import conftest
from tests.conftest import Gateway, encoded, eventually, free_port, serving
from tests.fake_engine import (
    FACE_OF_TILE,
    LANDMARKS_OF_TILE,
    FakeClassifier,
    FakeDetector,
    fake_engines,
)

END = '{"type": "end"}'


class Gate:
    """An event that coroutines wait for, and that any thread can open."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        await asyncio.to_thread(self._open.wait)


@contextmanager
def opened(gateway: Gateway, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    url = f"{gateway.url.replace('http', 'ws', 1)}/v1/stream{query}"
    with connect(url, compression=None, proxy=None, **options) as stream:
        yield stream


def ask(stream: ClientConnection, message: bytes | str) -> Any:
    stream.send(message)
    return receive(stream)


def receive(stream: ClientConnection) -> Any:
    return json.loads(stream.recv(timeout=20))


def closed(stream: ClientConnection) -> tuple[int, str]:
    """The close code and the reason, when the next event of a stream is its end."""
    with pytest.raises(ConnectionClosed) as caught:
        stream.recv(timeout=20)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def refused(gateway: Gateway, query: str = "", **options: Any) -> Any:
    """The problem that the server sends when it refuses to open a stream."""
    with pytest.raises(InvalidStatus) as caught, opened(gateway, query, **options):
        pass
    response = caught.value.response
    problem = json.loads(response.body or b"")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"] == problem["request_id"]
    assert "Content-Security-Policy" in response.headers
    assert problem["status"] == response.status_code
    return problem


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with serving(Settings(port=0, client_timeout_s=2), fake_engines()) as served:
        yield served


@pytest.fixture(autouse=True)
def no_open_streams_remain(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test no stream is open and no request is in flight."""
    yield
    if "gateway" in request.fixturenames:
        served: Gateway = request.getfixturevalue("gateway")
        eventually(lambda: served.metric("expressnet_streams") == 0)
        eventually(lambda: served.metric("expressnet_connections") == 1)
        assert served.metric("expressnet_requests_in_flight") == 0


def outcome(gateway: Gateway, name: str) -> float:
    return gateway.metric(f'expressnet_stream_frames_total{{outcome="{name}"}}')


def test_frames_are_answered_like_photos_and_have_track_numbers(
    gateway: Gateway, astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    (photo,) = gateway.post(astronaut_jpeg, include="landmarks").json()["faces"]
    with opened(gateway, "?include=landmarks") as stream:
        assert stream.response is not None
        assert stream.response.headers["X-Content-Type-Options"] == "nosniff"
        assert "Sec-WebSocket-Extensions" not in stream.response.headers
        for number in range(3):
            answer = ask(stream, astronaut_jpeg)
            assert (answer["type"], answer["frame"], answer["dropped"]) == ("frame", number, 0)
            assert answer["image"] == {"width": 512, "height": 512}
            (face,) = answer["faces"]
            smoothed = face.pop("smoothed")
            assert face == photo | {"track": 1}
            assert smoothed == {name: photo[name] for name in smoothed}
        assert ask(stream, faceless_jpeg)["faces"] == []
        summary = ask(stream, END)
        assert closed(stream) == (1000, "")
    assert summary["request_id"] == stream.response.headers["X-Request-ID"]
    assert (summary["type"], summary["frames"], summary["answered"]) == ("summary", 4, 4)
    (track,) = summary["tracks"]
    assert (track["track"], track["frames"], track["time_share"]["happiness"]) == (1, 3, 1)
    assert track["first_seen_s"] < track["last_seen_s"]


def test_a_face_in_several_frames_is_counted_once(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    predictions = 'expressnet_predictions_total{emotion="happiness",verdict="certain"}'
    before, answered = gateway.metric(predictions), outcome(gateway, "answered")
    with opened(gateway) as stream:
        for _ in range(3):
            ask(stream, astronaut_jpeg)
    assert gateway.metric(predictions) == before + 1
    assert outcome(gateway, "answered") == answered + 3


def test_an_invalid_image_is_a_problem_and_the_stream_continues(
    gateway: Gateway, astronaut_jpeg: bytes
) -> None:
    with opened(gateway) as stream:
        for junk in (b"", b"junk", astronaut_jpeg[:2000]):
            problem = ask(stream, junk)
            assert (problem["type"], problem["problem"]["code"]) == ("problem", "invalid_image")
        assert problem["frame"] == 2
        assert len(ask(stream, astronaut_jpeg)["faces"]) == 1
        assert ask(stream, END)["failed"] == 3


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", '{"type": "END"}', '{"type":' * 100_000, "end" * 500_000]
)
def test_an_invalid_message_is_a_problem_and_the_stream_continues(
    gateway: Gateway, astronaut_jpeg: bytes, text: str
) -> None:
    with opened(gateway) as stream:
        problem = ask(stream, text)
        assert problem["problem"]["code"] == "invalid_request"
        assert "frame" not in problem
        assert len(ask(stream, astronaut_jpeg)["faces"]) == 1


def test_faces_beyond_max_faces_are_counted(gateway: Gateway, astronaut: NDArray[np.uint8]) -> None:
    with opened(gateway, "?max_faces=1") as stream:
        answer = ask(stream, encoded(np.tile(astronaut, (1, 3, 1))))
    assert (len(answer["faces"]), answer["faces_found"]) == (1, 3)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("?detect=true", "detect"),
        ("?time_constant_s=-1", "time_constant_s"),
        ("?clock=mine", "clock"),
        ("?include=everything", "include"),
        ("?fps=3", "fps"),
        ("?max_unseen_s=0", "max_unseen_s"),
        ("?participant=", "participant"),
        ("?participant=anna%20b", "participant"),
        ("?participant=anna&max_faces=2", "the stream of a participant"),
    ],
)
def test_a_wrong_query_is_refused_by_name(gateway: Gateway, query: str, parameter: str) -> None:
    problem = refused(gateway, query)
    assert problem["code"] == "invalid_request"
    assert problem["detail"].startswith(parameter)


@pytest.mark.parametrize("gap_s", [2, 2.5, 10])
def test_one_frame_in_several_seconds_keeps_the_numbers(
    gateway: Gateway, gap_s: float, astronaut: NDArray[np.uint8], faceless_jpeg: bytes
) -> None:
    both = encoded(np.tile(astronaut, (1, 2, 1)))
    with opened(gateway, "?clock=sent") as stream:
        for frame in range(12):
            picture = faceless_jpeg if frame in (1, 5, 6, 7) else both
            answer = ask(stream, struct.pack(">d", frame * gap_s) + picture)
            assert {face["track"] for face in answer["faces"]} == ({1, 2} if picture == both else set())


def test_the_stream_of_a_participant_has_one_person(
    gateway: Gateway, astronaut: NDArray[np.uint8], astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    with opened(gateway, "?clock=sent&participant=anna.b-1@school") as stream:
        for time_s, picture, found in (
            (0, astronaut_jpeg, 1),
            (2, faceless_jpeg, 0),
            (4000, encoded(np.tile(astronaut, (1, 2, 1))), 2),
        ):
            answer = ask(stream, struct.pack(">d", time_s) + picture)
            assert answer["faces_found"] == found
            assert [face["track"] for face in answer["faces"]] == [1] * min(found, 1)
        (track,) = ask(stream, END)["tracks"]
    assert (track["track"], track["frames"], track["last_seen_s"]) == (1, 2, 4000)


MIN_FACES = 5


@pytest.fixture(scope="module")
def groups() -> Iterator[Gateway]:
    with serving(Settings(port=0, aggregate_only=MIN_FACES), fake_engines()) as served:
        yield served


def test_in_group_mode_a_stream_answers_groups(groups: Gateway, astronaut: NDArray[np.uint8]) -> None:
    crowd = np.tile(astronaut, (3, 3, 1))
    enough, crowd[-512:, -512:] = encoded(crowd), 0
    few = encoded(crowd)
    with opened(groups, "?clock=sent&participant=room&time_constant_s=0") as stream:
        answers = [
            ask(stream, struct.pack(">d", time_s) + picture)
            for time_s, picture in enumerate([few, enough, few, b"damaged"])
        ]
        summary = ask(stream, END)
    *frames, problem = answers
    assert problem["problem"]["code"] == "invalid_image"
    for frame in frames:
        assert set(frame) == {"type", "frame", "time_s", "dropped", "image", "group"}
    too_few, first, second = (frame["group"] for frame in frames)
    # Four faces are omitted by lot, and five must remain.
    assert too_few == {"min_faces": 2 * MIN_FACES - 1}
    assert (first["min_faces"], first["face_count"]) == (9, 9)
    assert set(first["probabilities"].values()) <= {step / 20 for step in range(21)}
    # A face that is missed for a moment still counts, so nobody sees from the answer whose face it is.
    assert second == first
    assert set(summary) == {"type", "request_id", "model", "frames", "answered", "dropped", "failed"}


@pytest.mark.parametrize("name", ["max_faces", "include", "max_unseen_s", "min_face_px"])
def test_in_group_mode_a_stream_cannot_choose_faces(groups: Gateway, name: str) -> None:
    value = "quality" if name == "include" else "20"
    problem = refused(groups, f"?{name}={value}")
    assert (problem["status"], problem["code"]) == (403, "not_available_in_group_mode")
    assert problem["detail"].startswith(f"{name} is not available")
    assert groups.client.get(f"/v1/stream?{name}={value}").json()["detail"] == problem["detail"]
    assert groups.metric("expressnet_streams") == 0


def test_a_stream_is_one_line_of_the_audit(tmp_path: Path, astronaut_jpeg: bytes) -> None:
    audit = tmp_path / "audit.jsonl"
    with serving(Settings(port=0, audit_file=audit), fake_engines()) as gateway:
        with opened(gateway) as stream:
            for _ in range(3):
                ask(stream, astronaut_jpeg)
            ask(stream, b"no picture")
            ask(stream, END)
        with opened(gateway):
            pass
        refused(gateway, "?include=mood")
        eventually(lambda: audit.read_bytes().count(b"\n") == 2)
    line, empty = (json.loads(each) for each in audit.read_text().splitlines())
    assert (line["route"], line["status"]) == ("/v1/stream", 101)
    assert (line["images"], line["problems"], line["faces"]) == (3, 1, 3)
    assert line["verdicts"] == {"certain": 3, "uncertain": 0}
    assert line["timings_ms"]["decode"] > 0
    assert "happiness" not in audit.read_text()
    assert (empty["images"], empty["faces"]) == (0, 0)


def test_a_recorded_video_has_its_own_clock(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    def at(time_s: float) -> bytes:
        return struct.pack(">d", time_s) + astronaut_jpeg

    with opened(gateway, "?clock=sent&time_constant_s=2&max_unseen_s=5") as stream:
        assert [ask(stream, at(time_s))["time_s"] for time_s in (-5.0, 7.25, 7.25)] == [-5.0, 7.25, 7.25]
        for wrong in (at(7.0), at(float("nan")), at(float("inf")), b"short"):
            assert ask(stream, wrong)["problem"]["code"] == "invalid_request"
        assert ask(stream, at(8.0))["frame"] == 7
        tracks = ask(stream, END)["tracks"]
    # After twelve seconds without a face, the next face is a new track.
    assert [(track["first_seen_s"], track["last_seen_s"]) for track in tracks] == [(-5, -5), (7.25, 8)]


def test_while_a_frame_is_processed_only_the_newest_frame_waits(
    astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    engines = fake_engines()
    gate = Gate()
    assert isinstance(engines.classifier, FakeClassifier)
    with serving(Settings(port=0), engines) as gateway, opened(gateway) as stream:
        engines.classifier.gate = gate  # type: ignore[assignment]
        stream.send(astronaut_jpeg)
        eventually(lambda: engines.classifier.batches)  # type: ignore[attr-defined]
        for _ in range(5):
            stream.send(astronaut_jpeg)
        stream.send(faceless_jpeg)
        eventually(lambda: outcome(gateway, "dropped") == 5)
        gate.open()
        first, last = receive(stream), receive(stream)
        assert (first["frame"], first["dropped"], len(first["faces"])) == (0, 0, 1)
        assert (last["frame"], last["dropped"], len(last["faces"])) == (6, 5, 0)
        summary = ask(stream, END)
        assert (summary["frames"], summary["answered"], summary["dropped"]) == (7, 2, 5)


def test_a_waiting_frame_is_answered_before_the_end(astronaut_jpeg: bytes) -> None:
    engines = fake_engines()
    assert isinstance(engines.detector, FakeDetector)
    engines.detector.delay_s = 0.2
    with serving(Settings(port=0), engines) as gateway, opened(gateway) as stream:
        stream.send(astronaut_jpeg)
        stream.send(END)
        assert [receive(stream)["type"], receive(stream)["type"]] == ["frame", "summary"]


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def stream_without_reader(gateway: Gateway, query: str = "") -> socket.socket:
    """An open stream whose client reads no answers."""
    host, port = gateway.url.removeprefix("http://").split(":")
    client = socket.socket()
    # A small buffer, so that it is full soon.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    lines = [f"GET /v1/stream{query} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in HANDSHAKE.items()]
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    return client


def flood(client: socket.socket, data: bytes) -> None:
    while True:
        client.sendall(data)
        time.sleep(0.005)


def test_a_client_that_does_not_read_loses_frames_and_is_disconnected(
    faceless_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind_with_small_buffer(settings: Settings) -> socket.socket:
        listener = bind(settings)
        # By default the kernel buffers megabytes.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        return listener

    monkeypatch.setattr(conftest, "bind", bind_with_small_buffer)
    engines = fake_engines()
    assert isinstance(engines.detector, FakeDetector)
    # Many faces make a long answer. The detector gets the image at half of its size.
    boxes = np.tile(FACE_OF_TILE / np.float32(4), (40, 1))
    landmarks = np.tile(LANDMARKS_OF_TILE / np.float32(4), (40, 1, 1))
    engines.detector.answer = Detections(boxes, np.ones(40, np.float32), landmarks)
    with serving(Settings(port=0, client_timeout_s=1), engines) as gateway:
        client = stream_without_reader(gateway, "?include=landmarks,quality,experts&max_faces=40")
        frame = b"\x82\xfe" + struct.pack(">H", len(faceless_jpeg)) + bytes(4) + faceless_jpeg
        with client, pytest.raises(OSError):  # noqa: PT011
            flood(client, frame)
        assert gateway.metric('expressnet_cut_connections_total{reason="unread"}') == 1
        answered, dropped = (outcome(gateway, name) for name in ("answered", "dropped"))
        # The server accepted frames although the client read no answers, and only a few answers waited.
        assert 0 < answered < 200
        assert dropped > answered


def test_a_frame_may_be_as_large_as_a_photo_and_no_larger(astronaut_jpeg: bytes) -> None:
    limit = len(astronaut_jpeg)
    with serving(Settings(port=0, body_limit_bytes=limit), fake_engines()) as gateway:
        with opened(gateway) as stream:
            assert ask(stream, astronaut_jpeg)["type"] == "frame"
            assert ask(stream, astronaut_jpeg + b"x")["problem"]["code"] == "body_too_large"
            stream.send(astronaut_jpeg + bytes(100))
            assert closed(stream)[0] == 1009
        with opened(gateway, "?clock=sent") as stream:
            assert ask(stream, struct.pack(">d", 0) + astronaut_jpeg)["type"] == "frame"
        eventually(lambda: gateway.metric("expressnet_streams") == 0)


def test_keys_open_a_stream_by_header_or_by_subprotocol(tmp_path: Path, astronaut_jpeg: bytes) -> None:
    file = tmp_path / "keys.toml"
    good = add_key(file, "good", [Scope.PREDICT], None, None)
    other = add_key(file, "other", [Scope.BATCH], None, None)
    with serving(Settings(port=0, keys_file=file), fake_engines()) as gateway:
        assert refused(gateway)["code"] == "unauthorized"
        assert refused(gateway, subprotocols=["key.xn_wrong"])["code"] == "unauthorized"
        assert refused(gateway, additional_headers={"X-API-Key": other})["code"] == "forbidden"
        # A page whose stream was refused requests the reason with a GET.
        assert gateway.client.get("/v1/stream").json()["code"] == "unauthorized"
        for options in (
            {"additional_headers": {"Authorization": f"Bearer {good}"}},
            {"subprotocols": [SUBPROTOCOL, f"key.{good}"]},
        ):
            with opened(gateway, **options) as stream:
                assert stream.subprotocol == (SUBPROTOCOL if "subprotocols" in options else None)
                assert ask(stream, astronaut_jpeg)["type"] == "frame"
                assert stream.response is not None
                assert good not in str(stream.response.headers)


def test_a_stream_ends_when_its_key_is_removed(tmp_path: Path, astronaut_jpeg: bytes) -> None:
    file = tmp_path / "keys.toml"
    add_key(file, "other", [Scope.PREDICT], None, None)
    key = add_key(file, "good", [Scope.PREDICT], None, None)
    settings = Settings(port=0, keys_file=file)
    headers = {"X-API-Key": key}
    with serving(settings, fake_engines()) as gateway, opened(gateway, additional_headers=headers) as stream:
        assert ask(stream, astronaut_jpeg)["type"] == "frame"
        remove_key(file, "good")
        answers: list[Any] = []

        def ended() -> bool:
            answers.append(ask(stream, astronaut_jpeg))
            return bool(answers[-1]["type"] == "problem")

        eventually(ended)
        assert answers[-1]["problem"]["code"] == "unauthorized"
        assert receive(stream)["type"] == "summary"
        assert closed(stream) == (POLICY, "the key is unknown")


def test_each_processed_frame_counts_for_the_rate(astronaut_jpeg: bytes) -> None:
    with serving(Settings(port=0, rate_limit="2/hour"), fake_engines()) as gateway, opened(gateway) as stream:
        assert [ask(stream, astronaut_jpeg)["type"] for _ in range(3)] == ["frame", "frame", "problem"]
        refusal = ask(stream, astronaut_jpeg)
        assert refusal["problem"]["code"] == "rate_limited"
        assert refusal["retry_after_s"] > 1
        assert gateway.post(astronaut_jpeg).status_code == 429
        assert gateway.metric('expressnet_rejected_total{reason="rate_limited"}') == 3


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://", "x"])
def test_pages_of_other_origins_may_not_open_a_stream(gateway: Gateway, origin: str) -> None:
    problem = refused(gateway, origin=origin)
    assert (problem["status"], problem["code"]) == (403, "origin_not_allowed")
    # The service's own page is also refused if a proxy rewrites Host, so the detail mentions Host.
    assert "Host" in problem["detail"]
    assert "EXPRESSNET_CORS_ORIGINS" in problem["detail"]


def test_own_pages_and_listed_origins_may_open_a_stream() -> None:
    listed = "https://app.example"
    with serving(Settings(port=0, cors_origins=(listed,)), fake_engines()) as gateway:
        for origin in (gateway.url, listed):
            with opened(gateway, origin=origin):
                pass
        assert refused(gateway, origin="https://app.example.evil")["code"] == "origin_not_allowed"


def test_there_is_no_stream_on_the_admin_port() -> None:
    port = free_port()
    with serving(Settings(port=0, admin_port=port), fake_engines()) as gateway:
        with opened(gateway):
            pass
        admin = Gateway(f"http://127.0.0.1:{port}")
        assert refused(admin)["code"] == "not_found"
        admin.client.close()


def test_the_number_of_streams_is_limited() -> None:
    with serving(Settings(port=0, max_streams=1), fake_engines()) as gateway:
        with opened(gateway):
            problem = refused(gateway)
            assert (problem["code"], problem["detail"]) == ("overloaded", "the limit of 1 streams is reached")
            answer = gateway.client.get("/v1/stream")
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert gateway.metric("expressnet_streams") == 1
        eventually(lambda: gateway.metric("expressnet_streams") == 0)
        with opened(gateway):
            pass


def test_an_idle_stream_is_closed_after_its_summary(astronaut_jpeg: bytes) -> None:
    with (
        serving(Settings(port=0, stream_idle_s=0.5), fake_engines()) as gateway,
        opened(gateway) as stream,
    ):
        ask(stream, astronaut_jpeg)
        assert len(receive(stream)["tracks"]) == 1
        assert closed(stream) == (IDLE, "nothing was sent for 0.5 s")


def test_a_draining_service_sends_the_summary_and_closes_the_stream(astronaut_jpeg: bytes) -> None:
    engines = fake_engines()
    assert isinstance(engines.detector, FakeDetector)
    with serving(Settings(port=0), engines) as gateway, opened(gateway) as stream:
        ask(stream, astronaut_jpeg)
        engines.detector.delay_s = 0.5
        stream.send(astronaut_jpeg)
        eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 1)
        gateway.drain()
        assert refused(gateway)["code"] == "draining"
        assert gateway._server is not None
        gateway._server.should_exit = True
        assert receive(stream)["frame"] == 1
        assert receive(stream)["answered"] == 2
        assert closed(stream) == (GOING_AWAY, "the service is shutting down")


def test_an_internal_error_is_a_problem_of_one_frame(astronaut_jpeg: bytes) -> None:
    engines = fake_engines()
    assert isinstance(engines.detector, FakeDetector)
    with serving(Settings(port=0, timeout_s=0.3), engines) as gateway, opened(gateway) as stream:
        engines.detector.error = RuntimeError("secret")
        failure = ask(stream, astronaut_jpeg)
        assert failure["problem"]["code"] == "internal"
        assert "secret" not in json.dumps(failure)
        engines.detector.error = None
        engines.detector.delay_s = 1
        assert ask(stream, astronaut_jpeg)["problem"]["code"] == "deadline_exceeded"
        engines.detector.delay_s = 0
        assert ask(stream, astronaut_jpeg)["type"] == "frame"


def test_frames_take_places_like_requests(astronaut_jpeg: bytes) -> None:
    engines = fake_engines()
    gate = Gate()
    assert isinstance(engines.classifier, FakeClassifier)
    settings = Settings(port=0, max_in_flight_requests=1)
    with serving(settings, engines) as gateway, opened(gateway) as one, opened(gateway) as other:
        engines.classifier.gate = gate  # type: ignore[assignment]
        one.send(astronaut_jpeg)
        eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 1)
        problem = ask(other, astronaut_jpeg)
        assert (problem["problem"]["code"], problem["retry_after_s"]) == ("overloaded", 1)
        gate.open()
        assert receive(one)["type"] == "frame"
        assert ask(other, astronaut_jpeg)["type"] == "frame"


def test_the_work_of_a_disconnected_client_is_cancelled(astronaut_jpeg: bytes) -> None:
    engines = fake_engines()
    assert isinstance(engines.detector, FakeDetector)
    with serving(Settings(port=0), engines) as gateway:
        engines.detector.delay_s = 5
        with opened(gateway) as stream:
            stream.send(astronaut_jpeg)
            eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 1)
        eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 0, timeout_s=3)
        assert gateway.metric('expressnet_stream_frames_total{outcome="dropped"}') == 1


def test_no_object_of_a_stream_is_kept_after_its_end(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    def kept() -> int:
        gc.collect()
        # Not isinstance: it may call code of the objects, and some objects of other packages fail then.
        return sum(type(each) in (Stream, Frame, Tracker) for each in gc.get_objects())

    with opened(gateway) as stream:
        ask(stream, astronaut_jpeg)
        assert kept() >= 2
    with opened(gateway) as stream:
        ask(stream, astronaut_jpeg)
        ask(stream, END)
    eventually(lambda: kept() == 0)


def test_a_message_in_too_many_pieces_is_refused(gateway: Gateway) -> None:
    with opened(gateway) as stream:
        frame = b"\x02\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * (PIECES + 1)
        stream.socket.sendall(frame)
        assert closed(stream)[0] == 1009


@pytest.mark.parametrize(
    "changes",
    [
        dict.fromkeys(HANDSHAKE),
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Protocol": '"no token"'},
        {"X-Long": "x" * 10_000},
    ],
)
def test_an_invalid_handshake_is_answered_with_426(gateway: Gateway, changes: dict[str, str | None]) -> None:
    headers = {name: value for name, value in (HANDSHAKE | changes).items() if value is not None}
    answer = gateway.client.get("/v1/stream", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
    assert answer.headers["Sec-WebSocket-Version"] == "13"


def test_other_addresses_do_not_become_websockets(gateway: Gateway) -> None:
    assert httpx.get(f"{gateway.url}/livez", headers=HANDSHAKE).status_code == 200
    assert httpx.get(f"{gateway.url}/v1/other", headers=HANDSHAKE).status_code == 404
