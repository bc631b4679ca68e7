"""Streams of a real process: people who cross, leave and come back, and the examples of the documentation."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.conftest import encoded, eventually
from tests.scenes import Watcher, crowd, frames, one_person
from tests.system.conftest import Process, running

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "streams.md").read_text(encoding="utf-8")


def example(language: str, gateway: Process) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert "127.0.0.1:8000" in block
    return (
        str(block).replace("http://", "ws://").replace("127.0.0.1:8000", gateway.url.removeprefix("http://"))
    )


def stream_to(gateway: Process, query: str = "") -> ClientConnection:
    return connect(f"{gateway.url.replace('http', 'ws', 1)}/v1/stream{query}", compression=None, proxy=None)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Process]:
    with running() as process:
        yield process


def test_people_who_cross_leave_and_come_back_keep_their_numbers(gateway: Process) -> None:
    watcher = Watcher(crowd())
    with stream_to(gateway, "?clock=sent") as stream:
        for time_s, pixels in frames(watcher.actors, seconds=8):
            stream.send(struct.pack(">d", time_s) + encoded(pixels))
            answer = json.loads(stream.recv(timeout=20))
            places = [
                (face["track"], (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
                for face in answer["faces"]
                if (box := face["box"])
            ]
            watcher.see(time_s, places)
        stream.send('{"type": "end"}')
        summary = json.loads(stream.recv(timeout=20))
    assert watcher.numbers.keys() == {actor.name for actor in watcher.actors}
    assert watcher.found > 300
    assert sum(watcher.switches.values()) <= 1, watcher.switches
    # In all, there is at most one track number more than people.
    assert len({number for given in watcher.numbers.values() for number in given}) <= len(watcher.actors) + 1
    staying = max(summary["tracks"], key=lambda track: track["frames"])
    assert staying["first_seen_s"] == 0
    assert staying["last_seen_s"] == pytest.approx(7.9)

    def lines() -> list[dict[str, Any]]:
        return [line for line in map(json.loads, gateway.log) if line.get("route") == "/v1/stream"]

    eventually(lines)
    (line,) = lines()
    assert set(line) == {
        *("event", "route", "method", "status", "duration_ms", "request_id", "level", "logger", "timestamp"),
        *("frames", "answered", "failed", "dropped"),
    }


def test_the_python_example_follows_a_recorded_video(gateway: Process, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number, (_, pixels) in enumerate(frames(one_person(), seconds=0.5)):
        (tmp_path / "frames" / f"{number:03}.jpg").write_bytes(encoded(pixels))
    script = [sys.executable, "-c", example("python", gateway)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    *faces, track = done.stdout.splitlines()
    assert [line.split()[:2] for line in faces] == [[str(number / 10), "1"] for number in range(5)]
    assert track.startswith("1 5 {'neutral': ")


def test_the_javascript_example_follows_a_camera(gateway: Process, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    camera = tmp_path / "camera.mjpeg"
    camera.write_bytes(b"".join(encoded(pixels) for _, pixels in frames(one_person(), seconds=1)))
    arguments = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        # The example runs in a page of the gateway, whose content policy would forbid the example's script.
        page = browser.new_page(bypass_csp=True)
        page.goto(f"{gateway.url}/livez")
        page.evaluate("() => { window.shown = []; window.show = (face) => shown.push(face); }")
        page.evaluate(f"async () => {{ {example('js', gateway)} }}")
        page.wait_for_function("shown.length > 4", timeout=30_000)
        shown: list[Any] = page.evaluate("shown")
        browser.close()
    assert {face["track"] for face in shown} == {1}
    assert all(
        set(face["smoothed"]) == {"emotion", "confidence", "verdict", "probabilities"} for face in shown
    )


def test_after_sigterm_a_stream_sends_its_summary(gateway: Process, astronaut_jpeg: bytes) -> None:
    with stream_to(gateway) as stream:
        stream.send(astronaut_jpeg)
        assert len(json.loads(stream.recv(timeout=20))["faces"]) == 1
        gateway.process.send_signal(signal.SIGTERM)
        assert len(json.loads(stream.recv(timeout=20))["tracks"]) == 1
        with pytest.raises(ConnectionClosed) as caught:
            stream.recv(timeout=20)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001
    assert gateway.process.wait(20) == os.EX_OK
    assert not [line for line in gateway.log if "Traceback" in line]
