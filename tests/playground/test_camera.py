"""The camera of the playground. It always shows the astronaut."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import WebSocket, WebSocketRoute, expect

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.api.shaping import to_problem
from service.core.errors import Overloaded
from service.core.manifest import EMOTIONS
from service.settings import Settings
from tests.conftest import ASTRONAUT_FACE, serving
from tests.fake_engine import fake_engines
from tests.playground.browser import CAMERA_PX, PHOTO_IN_CAMERA
from tests.playground.conftest import OpenPage
from tests.playground.visit import Visit, overlap

LEFT, TOP, SCALE = PHOTO_IN_CAMERA
FACE = tuple(at * SCALE + shift for at, shift in zip(ASTRONAUT_FACE, (LEFT, TOP, LEFT, TOP), strict=True))
CAMERA_IS_OFF = "document.querySelector('video').srcObject === null"


def test_a_picture_is_taken(open_page: OpenPage) -> None:
    page = open_page()
    page["#camera-start"].click()
    page.expect_status("The camera is on.")
    expect(page["#camera-live"]).to_be_focused()
    page.page.keyboard.press("Tab")
    expect(page["#camera-take"]).to_be_focused()
    page.page.keyboard.press("Enter")
    page.expect_status("1 face found.")
    assert overlap(page.boxes(CAMERA_PX[0])[0], FACE) > 0.7
    # The camera is off again and can be started once more.
    expect(page["video"]).to_be_hidden()
    assert page.page.evaluate(CAMERA_IS_OFF)
    expect(page["#camera-start"]).to_be_focused()


def test_live_mode_follows_the_face_over_one_stream(open_page: OpenPage) -> None:
    page = open_page()
    streams: list[WebSocket] = []
    photos: list[str] = []
    page.page.on("websocket", lambda stream: streams.append(stream))
    page.page.on(
        "request", lambda request: photos.append(request.url) if "/v1/emotions" in request.url else None
    )
    page.include("landmarks", "heatmap")
    page["#camera-start"].click()
    page["#camera-live"].click()
    page.expect_status("1 face found.")
    expect(page["#camera-live"]).to_have_attribute("aria-pressed", "true")
    expect(page['input[value="heatmap"]']).to_be_disabled()
    expect(page[".dot"]).to_have_count(5)
    assert overlap(page.boxes(CAMERA_PX[0])[0], FACE) > 0.7
    (stream,) = streams
    assert stream.url.endswith("/v1/stream?include=landmarks")
    # A slow click and the focus survive new answers.
    page["details.face summary"].hover()
    page.page.mouse.down()
    wait_for_frames(stream, 3)
    page.page.mouse.up()
    expect(page["details.face[open]"]).to_have_count(0)
    page[".box"].focus()
    wait_for_frames(stream, 3)
    expect(page["details.face[open]"]).to_have_count(0)
    expect(page[".box"]).to_be_focused()
    expect(page["#rows li"]).to_have_count(1)
    expect(page["#rows .now"]).to_have_text("happiness")
    assert colours_at_the_end_of_the_timeline(page) == [rgb(page, "happiness")]
    page["#camera-live"].click()
    page.expect_status("The camera is on.")
    # The summary of the service.
    expect(page[".tracks"]).to_contain_text("certain for 100 % of the time")
    expect(page[".tracks .shares"]).to_have_text("happiness 100 %")
    with page.page.expect_download() as saved:
        page["#save-csv"].click()
    rows = list(csv.DictReader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    assert {row["track"] for row in rows} == {"1"}
    assert [int(row["frame"]) for row in rows] == list(range(len(rows)))
    with page.page.expect_download() as saved:
        page["#save-json"].click()
    content = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert content["summary"]["answered"] == len(content["frames"]) == len(rows)
    expect(page[".box"]).to_have_count(0)
    expect(page['input[value="heatmap"]']).to_be_enabled()
    page["#camera-stop"].click()
    expect(page["#drop"]).to_be_visible()
    expect(page["#timeline"]).to_be_hidden()
    assert page.page.evaluate(CAMERA_IS_OFF)
    assert (len(streams), photos) == (1, [])


def wait_for_frames(stream: WebSocket, count: int) -> None:
    for _ in range(count):
        stream.wait_for_event("framereceived")


def rgb(page: Visit, emotion: str) -> list[int]:
    text = page["#timeline .emotions li"].filter(has_text=emotion).locator("path").first
    return [int(part) for part in re.findall(r"\d+", text.evaluate("path => getComputedStyle(path).fill"))]


def colours_at_the_end_of_the_timeline(page: Visit) -> list[list[int]]:
    """The colour of each row at its right end, below the drawn faces."""
    colours: list[list[int]] = page["#rows canvas"].evaluate_all(
        """rows => rows.map((row) => {
          const [x, y] = [row.width - 2, Math.round(0.85 * row.height)];
          return [...row.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)];
        })"""
    )
    return colours


def frame(number: int, *emotions: tuple[int, str, str]) -> str:
    """An answer of the service with a face for each (track, emotion, verdict)."""

    def face(place: int, track: int, emotion: str, verdict: str) -> dict[str, Any]:
        shares = {name: 0.93 if name == emotion else 0.01 for name in EMOTIONS}
        answer = {"emotion": emotion, "confidence": 0.93, "verdict": verdict, "probabilities": shares}
        box = {"x": 50.0 + 200 * place, "y": 100.0, "width": 90.0, "height": 90.0}
        return {"box": box, **answer, "track": track, "smoothed": answer}

    faces = [face(place, *one) for place, one in enumerate(emotions)]
    message = {"type": "frame", "frame": number, "time_s": number / 2, "dropped": 0}
    image = {"width": CAMERA_PX[0], "height": CAMERA_PX[1]}
    return json.dumps({**message, "image": image, "faces_found": len(faces), "faces": faces})


def test_the_timeline_has_a_row_for_each_face(open_page: OpenPage) -> None:
    page = open_page()
    numbers = iter(range(1000))

    def serve(stream: WebSocketRoute) -> None:
        def answer(_: object) -> None:
            number = next(numbers)
            second = "fear" if number < 3 else "sadness"
            stream.send(frame(number, (4, "anger", "certain"), (7, second, "uncertain")))

        stream.on_message(answer)

    page.page.route_web_socket(re.compile("/v1/stream"), serve)
    page["#camera-start"].click()
    page["#camera-live"].click()
    expect(page["#rows li"]).to_have_count(2)
    expect(page["#rows .number"]).to_have_text(["Face 4", "Face 7"])
    expect(page["#rows .now"]).to_have_text(["anger", "sadness"])
    expect(page["#rows canvas"].first).to_have_accessible_name("Emotions of face 4 over the last minute")
    expect(page[".face .number"]).to_have_text(["Face 4", "Face 7"])
    expect(page[".box"].last).to_have_attribute("aria-label", "Face 7: sadness, 93 %, uncertain")
    # The answer is uncertain over time, although no single frame is.
    expect(page[".reasons li"]).to_have_text("The answer changes from frame to frame.")
    certain, uncertain = colours_at_the_end_of_the_timeline(page)
    assert certain == rgb(page, "anger")
    # An uncertain stretch is paler.
    assert uncertain not in ([0, 0, 0], rgb(page, "sadness"))


def test_live_mode_waits_as_long_as_retry_after(open_page: OpenPage) -> None:
    page = open_page()
    problem = to_problem(Overloaded("busy"), "r1").model_dump()
    sent: list[float] = []

    def serve(stream: WebSocketRoute) -> None:
        def answer(_: object) -> None:
            sent.append(time.monotonic())
            if len(sent) == 1:
                stream.send(json.dumps({"type": "problem", "problem": problem, "retry_after_s": 1}))
            else:
                stream.send(frame(1, (1, "happiness", "certain")))

        stream.on_message(answer)

    page.page.route_web_socket(re.compile("/v1/stream"), serve)
    page["#camera-start"].click()
    page["#camera-live"].click()
    page.expect_problem("The service is overloaded right now.")
    page.expect_status("1 face found.")
    expect(page["#problem"]).to_be_empty()
    assert sent[1] - sent[0] >= 0.9


def test_a_refused_stream_is_explained(open_page: OpenPage, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key = add_key(file, "visitor", [Scope.PREDICT], None, None)
    with serving(Settings(port=0, keys_file=file), fake_engines()) as gateway:
        page = open_page(gateway.url)
        page["#camera-start"].click()
        page["#camera-live"].click()
        page.expect_problem("This service requires a key.")
        page["#problem [data-help=key]"].click()
        expect(page["#key"]).to_be_focused()
        page["#key"].fill(key)
        page["#camera-live"].click()
        page.expect_status(re.compile("found"))
        page.page.goto("about:blank")


def test_in_group_mode_the_camera_shows_groups(open_page: OpenPage) -> None:
    with serving(Settings(port=0, aggregate_only=5), fake_engines()) as gateway:
        page = open_page(gateway.url)
        page["#camera-start"].click()
        page["#camera-live"].click()
        # A stream of groups needs more faces than a photo: some are left to chance.
        page.expect_status("Fewer than 9 faces were found.")
        expect(page["#group"]).to_contain_text("never for a single face")
        page["#camera-live"].click()
        expect(page["#timings"]).to_contain_text("0 failed")
        page["#camera-take"].click()
        page.expect_status("Fewer than 5 faces were found.")
        page.page.goto("about:blank")


def test_a_broken_stream_can_be_opened_again(open_page: OpenPage) -> None:
    page = open_page()
    opened: list[WebSocketRoute] = []

    def serve(stream: WebSocketRoute) -> None:
        opened.append(stream)

        def answer(_: object) -> None:
            if len(opened) == 1:
                stream.close(code=1001)
            else:
                stream.send(frame(0, (1, "happiness", "certain")))

        stream.on_message(answer)

    page.page.route_web_socket(re.compile("/v1/stream"), serve)
    page["#camera-start"].click()
    page["#camera-live"].click()
    page.expect_problem("The service is shutting down.")
    expect(page["#camera-live"]).to_have_attribute("aria-pressed", "false")
    page["#problem [data-help=live]"].click()
    page.expect_status("1 face found.")


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "navigator.mediaDevices.getUserMedia = async () => {"
            " throw new DOMException('', 'NotAllowedError'); };",
            "The browser blocks the camera. Allow the camera beside the page's address.",
        ),
        (
            "Object.defineProperty(navigator, 'mediaDevices', {value: undefined});",
            "Browsers allow the camera only on pages over HTTPS, or on pages from this machine.",
        ),
    ],
    ids=["refused", "not a secure page"],
)
def test_an_unavailable_camera_is_explained(open_page: OpenPage, script: str, sentence: str) -> None:
    page = open_page()
    page.page.evaluate(f"() => {{ {script} }}")
    page["#camera-start"].click()
    page.expect_problem(sentence)
    expect(page["#drop"]).to_be_visible()
    expect(page["#camera-start"]).to_be_focused()
