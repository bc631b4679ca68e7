"""Recordings on a real server: uploads, states, results, errors and who sees them."""

from __future__ import annotations

import csv
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.assembly import Engines
from service.recordings import jobs
from service.settings import Settings
from tests.conftest import Gateway, eventually, serving
from tests.fake_engine import FakeClassifier, FakeDetector, fake_engines
from tests.recordings import RECORDINGS, clip, done, ended, portrait, send, state
from tests.scenes import video


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with serving(Settings(port=0), fake_engines()) as served:
        yield served


@contextmanager
def slow(**settings: Any) -> Iterator[Gateway]:
    """A gateway that needs at least 50 ms for a frame."""
    engines = Engines(FakeClassifier(delay_s=0.05), FakeDetector())
    with serving(Settings.model_validate({"port": 0} | settings), engines) as served:
        yield served


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_video_becomes_a_timeline_a_report_and_a_picture(gateway: Gateway, tmp_path: Path) -> None:
    answer = send(gateway, clip(tmp_path, away=range(10, 15)))
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{RECORDINGS}/{job['id']}"
    assert job["duration_s"] == 1.0
    last = ended(gateway, job["id"])
    assert (last["state"], last["frames"], last["progress"]) == ("done", 5, 1.0)
    place = f"{RECORDINGS}/{job['id']}"
    timeline = gateway.client.get(f"{place}/timeline").json()
    assert [frame["time_s"] for frame in timeline["frames"]] == [0, 0.2, 0.4, 0.6, 0.8]
    assert [len(frame["faces"]) for frame in timeline["frames"]] == [1, 1, 0, 1, 1]
    assert timeline["frames"][4]["faces"][0]["track"] == 1
    lines = gateway.client.get(f"{place}/timeline", params={"format": "jsonl"})
    assert lines.headers["Content-Type"] == "application/jsonl"
    assert [json.loads(line) for line in lines.text.splitlines()] == timeline["frames"]
    rows = list(
        csv.DictReader(gateway.client.get(f"{place}/timeline", params={"format": "csv"}).text.splitlines())
    )
    assert [row["track"] for row in rows] == ["1", "1", "", "1", "1"]
    report = gateway.client.get(f"{place}/report").json()
    assert report["tracks"][0]["frames"] == 4
    assert (report["group"]["absent"], report["group"]["time_share"]["happiness"]) == (0.2, 1.0)
    assert [minute["frames"] for minute in report["minutes"]] == [5]
    picture = gateway.client.get(f"{place}/plot")
    with Image.open(BytesIO(picture.content)) as drawn:
        assert (picture.headers["Content-Type"], drawn.format) == ("image/png", "PNG")
    picture = gateway.client.get(f"{place}/plot", params={"format": "svg"})
    assert picture.headers["Content-Type"] == "image/svg+xml"
    assert ElementTree.fromstring(picture.content).get("width") == str(drawn.width)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "avi", "mpg"])
def test_videos_of_every_kind_are_analysed(gateway: Gateway, tmp_path: Path, kind: str) -> None:
    id = done(gateway, clip(tmp_path, kind=kind), fps=2)
    assert state(gateway, id)["frames"] == 2


def test_a_form_has_the_video(gateway: Gateway, tmp_path: Path) -> None:
    answer = gateway.client.post(RECORDINGS, files={"video": ("clip.mp4", clip(tmp_path))})
    assert answer.status_code == 202
    assert ended(gateway, answer.json()["id"])["frames"] == 5
    wrong = gateway.client.post(RECORDINGS, files={"image": ("clip.mp4", clip(tmp_path))})
    assert code(wrong) == (422, "invalid_request")


def test_a_region_is_analysed_and_boxes_are_those_of_the_frame(gateway: Gateway, tmp_path: Path) -> None:
    pair = np.hstack([portrait(), portrait()])
    data = video(tmp_path / "pair.mp4", {0: pair}).read_bytes()
    (whole,) = gateway.client.get(f"{RECORDINGS}/{done(gateway, data)}/timeline").json()["frames"]
    id = done(gateway, data, region="0.5,0,0.5,1", include="landmarks")
    (right,) = gateway.client.get(f"{RECORDINGS}/{id}/timeline").json()["frames"]
    assert (len(whole["faces"]), len(right["faces"])) == (2, 1)
    assert right["image"] == whole["image"] == {"width": 1024, "height": 512}
    (face,) = right["faces"]
    assert face["box"] in [each["box"] for each in whole["faces"]]
    assert face["box"]["x"] > 512
    assert face["landmarks"]["nose"]["x"] > 512


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"fps": "0"}, "fps"),
        ({"fps": "31"}, "fps"),
        ({"region": "0.5,0,0.6,1"}, "region"),
        ({"region": "0,0,0,1"}, "region"),
        ({"region": "nan,0,1,1"}, "region"),
        ({"region": "left"}, "region"),
        ({"include": "heatmap"}, "include"),
        ({"speed": "2"}, "speed"),
    ],
)
def test_wrong_options_are_refused(gateway: Gateway, query: dict[str, Any], name: str) -> None:
    answer = send(gateway, b"", **query)
    assert code(answer) == (422, "invalid_request")
    assert answer.json()["detail"].startswith(name)


def song(file: Path) -> bytes:
    with av.open(str(file), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return file.read_bytes()


def test_data_that_is_no_video_is_refused(gateway: Gateway, tmp_path: Path, astronaut_jpeg: bytes) -> None:
    whole = clip(tmp_path)
    # The index of an MP4 is at its end.
    for data in (b"", b"no video", astronaut_jpeg, song(tmp_path / "song.wav"), whole[: len(whole) // 2]):
        assert code(send(gateway, data)) == (400, "invalid_video")
    assert code(send(gateway, whole, {"Content-Type": "text/plain"})) == (415, "unsupported_media_type")
    encoded = send(gateway, whole, {"Content-Encoding": "gzip"})
    assert code(encoded) == (415, "unsupported_media_type")
    # A refused recording ends after its answer.
    eventually(lambda: gateway.metric("expressnet_recordings") == 0)


@pytest.mark.parametrize("kind", ["mkv", "avi"])
def test_a_video_that_is_cut_short_fails_with_the_frames_before_the_cut(
    gateway: Gateway, tmp_path: Path, kind: str
) -> None:
    data = clip(tmp_path, seconds=10, kind=kind)
    id = send(gateway, data[: len(data) // 2], fps=1).json()["id"]
    last = ended(gateway, id)
    assert (last["state"], last["problem"]["code"]) == ("failed", "invalid_video")
    assert "cut short" in last["problem"]["detail"]
    frames = gateway.client.get(f"{RECORDINGS}/{id}/timeline").json()["frames"]
    assert 3 <= len(frames) == last["frames"] <= 6


def test_a_video_without_a_frame_fails(gateway: Gateway, tmp_path: Path) -> None:
    data = bytearray(clip(tmp_path))
    at, size = data.index(b"mdat"), struct.unpack(">I", data[data.index(b"mdat") - 4 :][:4])[0]
    data[at + 4 : at + size - 4] = bytes(size - 8)
    last = ended(gateway, send(gateway, bytes(data)).json()["id"])
    assert (last["state"], last["problem"]["code"]) == ("failed", "invalid_video")
    no_results = gateway.client.get(f"{RECORDINGS}/{last['id']}/report")
    assert code(no_results) == (409, "recording_not_done")


def test_limits_of_bytes_minutes_and_pixels(tmp_path: Path) -> None:
    data = clip(tmp_path, seconds=2)
    limits = Settings(port=0, recording_limit_bytes=len(data) - 1, client_timeout_s=1)
    with serving(limits, fake_engines()) as gateway:
        assert code(send(gateway, data)) == (413, "body_too_large")
        endless = gateway.client.post(
            RECORDINGS, content=iter([data[:1000]] * 10**6), headers={"Content-Type": "video/mp4"}
        )
        assert code(endless) == (413, "body_too_large")
        assert gateway.metric("expressnet_recordings") == 0
    with serving(Settings(port=0, recording_pixel_limit=512 * 511), fake_engines()) as gateway:
        problem = ended(gateway, send(gateway, data).json()["id"])["problem"]
        assert (problem["code"], "pixels" in problem["detail"]) == ("invalid_video", True)
    with serving(Settings(port=0, recording_limit_minutes=1), fake_engines()) as gateway:
        frames = dict.fromkeys((0, 1, 25 * 61), portrait())
        long = video(tmp_path / "long.mkv", frames).read_bytes()
        assert code(send(gateway, long)) == (413, "video_too_long")


def test_a_client_that_stops_sending_is_answered(tmp_path: Path) -> None:
    data = clip(tmp_path)
    with serving(Settings(port=0, client_timeout_s=0.5), fake_engines()) as gateway:
        more = threading.Event()

        def parts() -> Iterator[bytes]:
            yield data[:1000]
            more.wait(2)

        answer = gateway.client.post(RECORDINGS, content=parts(), headers={"Content-Type": "video/mp4"})
        more.set()
        assert code(answer) == (408, "request_timeout")
        eventually(lambda: gateway.metric("expressnet_recordings") == 0)


def test_a_client_that_leaves_leaves_nothing(gateway: Gateway, tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield clip(tmp_path)[:1000]
        eventually(lambda: gateway.metric("expressnet_recordings") == 1)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError), httpx.Client(base_url=gateway.url) as client:
        client.post(RECORDINGS, content=parts(), headers={"Content-Type": "video/mp4"})
    eventually(lambda: gateway.metric("expressnet_recordings") == 0)


def test_frames_are_analysed_while_the_video_arrives(gateway: Gateway, tmp_path: Path) -> None:
    data = clip(tmp_path, seconds=10, kind="mkv")

    def parts() -> Iterator[bytes]:
        before = gateway.metric("expressnet_recording_frames_total")
        yield data[: 3 * len(data) // 4]
        eventually(lambda: gateway.metric("expressnet_recording_frames_total") > before)
        yield data[3 * len(data) // 4 :]

    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        answer = client.post(RECORDINGS, content=parts(), headers={"Content-Type": "video/x-matroska"})
    assert ended(gateway, answer.json()["id"])["frames"] == 50


def test_a_cancelled_recording_stops_within_a_second(tmp_path: Path) -> None:
    with slow() as gateway:
        id = send(gateway, clip(tmp_path, seconds=20)).json()["id"]
        eventually(lambda: state(gateway, id)["frames"] > 0)
        began = time.monotonic()
        assert gateway.client.delete(f"{RECORDINGS}/{id}").status_code == 204
        eventually(lambda: gateway.metric("expressnet_recordings") == 0, 5)
        assert time.monotonic() - began < 5  # not 1 s: the machine may be busy
        assert state(gateway, id)["state"] == "cancelled"
        frames = gateway.metric("expressnet_recording_frames_total")
        assert code(gateway.client.get(f"{RECORDINGS}/{id}/report")) == (409, "recording_not_done")
        assert gateway.client.delete(f"{RECORDINGS}/{id}").status_code == 204
        assert code(gateway.client.get(f"{RECORDINGS}/{id}")) == (404, "not_found")
        assert gateway.metric("expressnet_recording_frames_total") == frames
        assert gateway.metric('expressnet_recordings_ended_total{outcome="cancelled"}') == 1


def test_a_removed_recording_is_gone(gateway: Gateway, tmp_path: Path) -> None:
    id = done(gateway, clip(tmp_path))
    assert gateway.client.delete(f"{RECORDINGS}/{id}").status_code == 204
    for rest in ("", "/timeline", "/report", "/plot", "/events"):
        assert code(gateway.client.get(f"{RECORDINGS}/{id}{rest}")) == (404, "not_found")
    assert code(gateway.client.delete(f"{RECORDINGS}/{id}")) == (404, "not_found")


def test_more_recordings_than_the_limit_are_refused(tmp_path: Path) -> None:
    data = clip(tmp_path, seconds=20)
    with slow(max_recordings=3) as gateway:
        answers = [send(gateway, data) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
        assert code(answers[3]) == (429, "overloaded")
        assert answers[3].headers["Retry-After"]
        ids = [answer.json()["id"] for answer in answers[:3]]
        # Two are at work at a time.
        assert [state(gateway, id)["state"] for id in ids] == ["working", "working", "queued"]
        gateway.client.delete(f"{RECORDINGS}/{ids[0]}")
        eventually(lambda: state(gateway, ids[2])["state"] == "working")


def test_events_follow_a_recording_to_its_end(tmp_path: Path) -> None:
    with slow() as gateway:
        id = send(gateway, clip(tmp_path, seconds=4)).json()["id"]
        with gateway.client.stream("GET", f"{RECORDINGS}/{id}/events") as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            sent = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        assert sent[-1] == state(gateway, id) | {"state": "done"}
        assert len(sent) > 1
        assert [each["frames"] for each in sent] == sorted(each["frames"] for each in sent)


def test_the_headers_of_events_come_alone(tmp_path: Path) -> None:
    with slow() as gateway:
        id = send(gateway, clip(tmp_path, seconds=20)).json()["id"]
        answer = gateway.client.head(f"{RECORDINGS}/{id}/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert state(gateway, id)["state"] in ("queued", "working")


def test_a_repeated_request_with_the_same_key_is_one_recording(gateway: Gateway, tmp_path: Path) -> None:
    data = clip(tmp_path)
    answers = [send(gateway, data, {"Idempotency-Key": "call 7"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = send(gateway, data, {"Idempotency-Key": "call 7"}, fps=1)
    assert code(other) == (422, "invalid_request")
    assert send(gateway, data, {"Idempotency-Key": "call 8"}).json()["id"] != answers[0].json()["id"]


def test_only_the_key_that_made_a_recording_sees_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    mine, theirs = (
        {"X-API-Key": add_key(keys, name, [Scope.PREDICT], None, None)} for name in ("mine", "theirs")
    )
    with serving(Settings(port=0, keys_file=keys, allow_anonymous=True), fake_engines()) as gateway:
        id = send(gateway, clip(tmp_path), mine | {"Idempotency-Key": "a"}).json()["id"]

        def get(rest: str, headers: dict[str, str]) -> int:
            return gateway.client.get(f"{RECORDINGS}/{id}{rest}", headers=headers).status_code

        eventually(lambda: get("/report", mine) == 200)
        for headers in (theirs, {}):
            assert {get(rest, headers) for rest in ("", "/timeline", "/report", "/plot", "/events")} == {404}
            assert gateway.client.delete(f"{RECORDINGS}/{id}", headers=headers).status_code == 404
        assert send(gateway, clip(tmp_path), theirs | {"Idempotency-Key": "a"}).json()["id"] != id
        assert get("", mine) == 200


def test_a_recording_waits_for_the_rate_of_its_caller(tmp_path: Path) -> None:
    with serving(Settings(port=0, rate_limit="4/second"), fake_engines()) as gateway:
        id = done(gateway, clip(tmp_path, seconds=2))
        assert state(gateway, id)["frames"] == 10


def test_a_recording_is_audited_at_its_end(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    with serving(Settings(port=0, audit_file=audit), fake_engines()) as gateway:
        done(gateway, clip(tmp_path))
    accepted, end = (json.loads(line) for line in audit.read_text().splitlines())
    assert accepted["request_id"] == end["request_id"]
    assert [(line["status"], line["images"], line["faces"]) for line in (accepted, end)] == [
        (202, 0, 0),
        (200, 5, 5),
    ]
    assert end["verdicts"]["certain"] + end["verdicts"]["uncertain"] == 5


def test_a_failing_engine_fails_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.1)
    broken = Engines(FakeClassifier(error=RuntimeError("broken")), FakeDetector())
    with serving(Settings(port=0), broken) as gateway:
        last = ended(gateway, send(gateway, clip(tmp_path)).json()["id"])
        assert (last["state"], last["problem"]["code"]) == ("failed", "internal")
        assert "broken" not in json.dumps(last)


def test_a_decoder_that_does_not_end_fails_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()

    def never(*_: object) -> Iterator[object]:
        stuck.wait(30)
        yield from ()

    monkeypatch.setattr(jobs, "read_frames", never)
    monkeypatch.setattr(jobs, "DECODE_LIMIT_S", 0.2)
    with serving(Settings(port=0), fake_engines()) as gateway:
        last = ended(gateway, send(gateway, clip(tmp_path)).json()["id"])
        assert (last["state"], last["problem"]["code"]) == ("failed", "video_too_complex")
        stuck.set()
        eventually(lambda: gateway.metric("expressnet_recordings") == 0)


def test_a_full_disk_is_answered(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.recordings.upload.Upload.write", full)
    assert code(send(gateway, clip(tmp_path))) == (507, "insufficient_storage")


def test_group_mode_has_a_report_of_groups_only(tmp_path: Path) -> None:
    crowd, few = np.tile(portrait(), (2, 3, 1)), np.tile(portrait(), (2, 2, 1))
    few_s = video(tmp_path / "few.mp4", dict.fromkeys(range(10), np.pad(few, ((0, 0), (0, 512), (0, 0)))))
    frames = {
        number: crowd if number < 38 else np.pad(few, ((0, 0), (0, 512), (0, 0))) for number in range(50)
    }
    with serving(Settings(port=0, aggregate_only=5), fake_engines()) as gateway:
        id = done(gateway, video(tmp_path / "group.mp4", frames).read_bytes())
        report = gateway.client.get(f"{RECORDINGS}/{id}/report").json()
        assert set(report) == {"model", "duration_s", "minutes", "group"}
        assert (report["group"]["min_faces"], report["group"]["grouped"]) == (5, 0.8)
        assert report["group"]["probabilities"]["happiness"] > 0.5
        assert set(report["minutes"][0]) == {"start_s", "end_s", "min_faces", "grouped", "probabilities"}
        for rest in ("timeline", "plot"):
            answer = gateway.client.get(f"{RECORDINGS}/{id}/{rest}")
            assert code(answer) == (403, "not_available_in_group_mode")
        none = done(gateway, few_s.read_bytes())
        assert gateway.client.get(f"{RECORDINGS}/{none}/report").json()["group"] == {
            "min_faces": 5,
            "grouped": 0.0,
        }
        for query in ({"region": "0,0,0.5,1"}, {"max_faces": 6}, {"include": "quality"}):
            assert code(send(gateway, b"", **query)) == (422, "invalid_request")
        for line in gateway.client.get("/metrics").text.splitlines():
            if line.startswith(("expressnet_predictions_total", "expressnet_face_size")):
                assert line.rpartition(" ")[2] == "0.0", line
