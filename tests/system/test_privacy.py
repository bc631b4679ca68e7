"""No part of a photo stays: the tests search disk and log of a real process after requests of all kinds."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets import Subprotocol
from websockets.sync.client import connect

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.core.manifest import EMOTIONS, read_manifest
from service.settings import Settings
from service.vision.align import align_faces
from service.vision.decode import decode
from tests.conftest import encoded, serving
from tests.fake_engine import fake_engines
from tests.system.conftest import running

ROOT = Path(__file__).parents[2]
WINDOW = 32  # bytes: a part of a photo that is this long appears nowhere else
INCLUDE = "landmarks,quality,experts,engagement,heatmap"


def windows(data: bytes, count: int = 16) -> list[bytes]:
    """Parts from the whole data, without parts that many files contain: headers, and runs of one value."""
    starts = range(len(data) // 8, len(data) - 2 * WINDOW, max(1, len(data) // count))
    # At a multiple of three, base64 of the part has the same letters as base64 of the whole.
    found = [data[start - start % 3 :][:WINDOW] for start in starts]
    return [window for window in found if len(set(window)) > WINDOW // 4]


def forbidden_parts(photo: bytes, crops: NDArray[np.uint8], answer: str) -> dict[str, list[bytes]]:
    """By kind, the bytes that must be neither on the disk nor in the log."""
    pixels = decode(photo, pixel_limit=10**8).pixels.tobytes()
    encoded_photo = windows(photo)
    numbers = re.findall(r'"(?:confidence|detection_confidence|\w+)":(0\.\d{4,})', answer.replace(" ", ""))
    return {
        "image bytes": encoded_photo,
        "image as base64": [base64.b64encode(part[:30]) for part in encoded_photo],
        "image as Python prints bytes": [repr(part)[2:-1].encode() for part in encoded_photo],
        "image as hexadecimal": [part.hex().encode() for part in encoded_photo],
        "pixels": windows(pixels),
        "pixels as numpy prints them": [b" ".join(b"%d" % v for v in part[:8]) for part in windows(pixels)],
        "crop": windows(crops.tobytes()) + windows(crops.transpose(0, 2, 3, 1).tobytes()),
        "heatmap": [part for png in re.findall(r'"png":"([^"]+)"', answer) for part in windows(png.encode())],
        "numbers of a face": [number.encode() for number in numbers],
    }


def leaks(data: bytes, forbidden: dict[str, list[bytes]]) -> set[str]:
    """The kinds of forbidden parts in the data."""
    return {kind for kind, parts in forbidden.items() if any(part in data for part in parts)}


@contextmanager
def watched_files(pid: int) -> Iterator[set[str]]:
    """The files that the process has open for writing during the block."""
    written: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    flags = int(
                        re.findall(
                            r"flags:\s+(\d+)",
                            (descriptor.parents[1] / "fdinfo" / descriptor.name).read_text(),
                        )[0],
                        8,
                    )
                    target = descriptor.readlink()
                except (OSError, IndexError):
                    continue
                if (
                    flags & (os.O_WRONLY | os.O_RDWR)
                    and str(target).startswith("/")
                    and not str(target).startswith("/dev/")
                ):
                    written.add(str(target))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield written
    finally:
        done.set()
        watcher.join()


def files(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def written_to_disk(pid: int) -> int:
    text = Path(f"/proc/{pid}/io").read_text()
    return int(re.findall(r"^write_bytes: (\d+)", text, re.MULTILINE)[0])


def test_no_image_crop_or_probability_is_on_disk_or_in_the_log(
    tmp_path: Path, astronaut: NDArray[np.uint8], astronaut_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("cwd", "tmp", "home")]
    for folder, variable in zip(folders, ("PWD", "TMPDIR", "HOME"), strict=True):
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # coverage.py writes files
    monkeypatch.chdir(folders[0])
    models = ROOT / "model_repository"
    # Above 1 MB, multipart parsers usually spool to disk.
    large = encoded(astronaut.repeat(3, axis=0).repeat(3, axis=1), "BMP")
    assert len(large) > 1 << 20
    with running(model_repository=models, log_level="debug") as gateway:
        pid = gateway.process.pid
        before, written_before = files(*folders), written_to_disk(pid)
        with watched_files(pid) as opened:
            answers = [gateway.post(astronaut_jpeg, include=INCLUDE)]
            answers += [
                gateway.client.post("/v1/emotions", files={"image": ("photo.jpg", photo)})
                for photo in (astronaut_jpeg, large)
            ]
            photo_base64 = base64.b64encode(astronaut_jpeg).decode()
            answers.append(gateway.client.post("/v1/emotions", json={"image": photo_base64}))
            parts = [
                ("images", ("a", photo))
                for photo in (astronaut_jpeg, b"garbage", astronaut_jpeg[:9000], large)
            ]
            answers.append(
                gateway.client.post("/v1/emotions/batch", files=parts, params={"include": INCLUDE})
            )
            assert {answer.status_code for answer in answers} == {200}
            failures = [
                gateway.post(astronaut_jpeg[:9000]),
                gateway.post(astronaut_jpeg, include="soul"),
                gateway.post(astronaut_jpeg, media_type="text/plain"),
                gateway.client.post("/v1/emotions", json={"image": photo_base64 + "!"}),
                gateway.client.post("/v1/emotions", json={"picture": photo_base64}),
                gateway.client.post("/v1/emotions", files={"photo": ("photo.jpg", astronaut_jpeg)}),
                gateway.client.post(
                    "/v1/emotions",
                    content=large,
                    headers={"Content-Type": "image/bmp", "X-Timeout-Ms": "1"},
                ),
            ]
            assert {answer.status_code // 100 for answer in failures} <= {4, 5}
        after, written_after = files(*folders), written_to_disk(pid)
        assert gateway.stop() == 0
    log = "".join(gateway.log).encode()
    assert log.count(b'"event": "request"') == len(answers) + len(failures) + log.count(b"/readyz")
    landmarks = answers[0].json()["faces"][0]["landmarks"]
    points = np.array([[[point["x"], point["y"]] for point in landmarks.values()]], np.float32)
    network_input = read_manifest(models, Settings().classifier).input
    assert network_input is not None
    crops = align_faces(astronaut, points, network_input.crop, network_input.size)
    forbidden = forbidden_parts(astronaut_jpeg, crops, " ".join(answer.text for answer in answers))
    assert all(len(parts) >= 5 for parts in forbidden.values()), "too few parts to search for"

    assert leaks(log, forbidden) == set()
    assert leaks("".join(answer.text for answer in failures).encode(), forbidden) == set()
    assert after == before, "the process left files"
    assert opened == set()
    assert written_after == written_before

    # The search finds each part in the middle of a log.
    for kind, parts_of_kind in forbidden.items():
        for part in parts_of_kind:
            assert leaks(log + part + log, forbidden) >= {kind}


def test_the_audit_holds_nothing_of_a_photo(
    tmp_path: Path, astronaut: NDArray[np.uint8], astronaut_jpeg: bytes
) -> None:
    file = tmp_path / "audit.jsonl"
    with serving(Settings(port=0, audit_file=file), fake_engines()) as gateway:
        answers = [
            gateway.post(astronaut_jpeg, include=INCLUDE),
            gateway.post(astronaut_jpeg, detect="false"),
        ]
        parts = [("images", ("a", photo)) for photo in (astronaut_jpeg, astronaut_jpeg[:9000])]
        answers.append(gateway.client.post("/v1/emotions/batch", files=parts, params={"include": INCLUDE}))
        assert {answer.status_code for answer in answers} == {200}
        failures = [gateway.post(astronaut_jpeg[:9000]), gateway.post(astronaut_jpeg, include="soul")]
    lines = file.read_bytes()
    ids = [json.loads(line)["request_id"] for line in lines.splitlines()]
    assert ids == [answer.headers["X-Request-ID"] for answer in answers + failures]
    assert [json.loads(line)["status"] for line in lines.splitlines()] == [200, 200, 200, 400, 422]
    (face,) = answers[0].json()["faces"]
    points = np.array([[[point["x"], point["y"]] for point in face["landmarks"].values()]], np.float32)
    network_input = read_manifest(Settings().model_repository, Settings().classifier).input
    assert network_input is not None
    crops = align_faces(astronaut, points, network_input.crop, network_input.size)
    forbidden = forbidden_parts(astronaut_jpeg, crops, " ".join(answer.text for answer in answers))
    assert leaks(lines, forbidden) == set()
    for word in (*EMOTIONS, "box", "probabilit", "confidence", "landmark"):
        assert word.encode() not in lines
    # The size of the photo is absent, too. Identifiers and times may have the same digits by chance.
    for line in map(json.loads, lines.splitlines()):
        kept = {key: value for key, value in line.items() if key not in {"request_id", "time", "timings_ms"}}
        assert not {str(side) for side in astronaut.shape[:2]} & set(re.findall(r"\b\d+\b", json.dumps(kept)))


def test_the_watch_finds_a_file_that_is_open_for_writing(tmp_path: Path) -> None:
    with watched_files(os.getpid()) as opened, (tmp_path / "leak").open("wb"):
        for _ in range(1000):
            if any("leak" in path for path in opened):
                break
            threading.Event().wait(0.01)
    assert any(path.endswith("leak") for path in opened)


def test_no_key_is_in_the_log_however_it_is_sent(tmp_path: Path) -> None:
    """At level debug the WebSocket library would log the heads of handshakes."""
    file = tmp_path / "keys.toml"
    key = add_key(file, "one", [Scope.PREDICT], None, None)
    with running(log_level="debug", keys_file=file) as gateway:
        address = f"{gateway.url.replace('http', 'ws', 1)}/v1/stream"
        with connect(address, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None) as stream:
            stream.send('{"type": "end"}')
            assert json.loads(stream.recv())["type"] == "summary"
        with connect(address, subprotocols=[Subprotocol(f"key.{key}")], proxy=None):
            pass
        gateway.client.get("/v1/models", headers={"X-API-Key": key}).raise_for_status()
        gateway.stop()
        log = "".join(gateway.log)
    assert "request" in log
    assert key not in log
