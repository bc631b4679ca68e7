"""A video in the playground, from its upload to its deletion."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from playwright.sync_api import Request, Route, expect

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.api.shaping import to_problem
from service.core.errors import Overloaded
from service.http.problems import MEDIA_TYPE
from service.settings import Settings
from tests.conftest import ASTRONAUT_FACE, Gateway, eventually, serving
from tests.fake_engine import fake_engines
from tests.playground.conftest import OpenPage
from tests.playground.test_access import findings
from tests.playground.visit import Visit, overlap
from tests.scenes import video

RATE, SECONDS, AWAY_S = 10, 4, 2
DONE = "The video was analysed."


def written(file: Path) -> Path:
    """The astronaut for `AWAY_S`, then an empty picture."""
    astronaut = skimage.data.astronaut()
    empty = np.full_like(astronaut, 120)
    shown = {number: astronaut if number < RATE * AWAY_S else empty for number in range(RATE * SECONDS)}
    return video(file, shown, rate=RATE)


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("video") / "call.webm")


@pytest.fixture(scope="module")
def fake_service() -> Iterator[Gateway]:
    with serving(Settings(port=0), fake_engines()) as gateway:
        yield gateway


def requests(page: Visit) -> list[str]:
    """Method and path of each call of the API, from now on."""
    seen: list[str] = []

    def note(request: Request) -> None:
        if "/v1/recordings" in request.url:
            seen.append(f"{request.method} {request.url.partition('/v1/recordings')[2]}")

    page.page.on("request", note)
    return seen


def scrub(page: Visit, time_s: float) -> None:
    page["#scrub"].evaluate(
        "(scrub, time_s) => { scrub.value = time_s; scrub.dispatchEvent(new Event('input')); }", time_s
    )


def saved(page: Visit, result: str) -> bytes:
    with page.page.expect_download() as download:
        page[f'[data-result="{result}"]'].click()
    return Path(download.value.path()).read_bytes()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_video_has_boxes_a_timeline_and_a_table(open_page: OpenPage, call: Path, scheme: str) -> None:
    page = open_page(color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1280, "height": 900})
    calls = requests(page)
    page.include("quality", "heatmap")
    page.drop(call.read_bytes(), "call.webm", "video/webm")
    expect(page["#recording"]).to_be_visible()
    assert calls[0] == "POST ?include=quality"
    page.expect_status("1 face found.")
    expect(page["#work"]).to_be_hidden()
    assert overlap(page.boxes(512)[0], ASTRONAUT_FACE) > 0.6
    expect(page["#rows li"]).to_have_count(1)
    expect(page["#rows .now"]).to_have_text("happiness")
    expect(page["#rows canvas"]).to_have_accessible_name("Emotions of face 1 over the video")
    expect(page["#clock"]).to_have_text("0:00 / 0:04")
    expect(page["#tracks tbody tr"]).to_have_count(1)
    expect(page["#tracks .shares"]).to_have_text("happiness 100 %")
    assert findings(page) == []
    # The scrub bar seeks the video.
    scrub(page, 3.5)
    expect(page["#rows .now"]).to_have_text("not seen")
    expect(page[".box"]).to_have_count(0)
    assert page["video"].evaluate("video => video.currentTime") == pytest.approx(3.5, abs=0.01)
    page["#tracks .moment"].click()
    expect(page[".box"]).to_have_count(1)
    assert page["video"].evaluate("video => video.currentTime") == 0
    # So does a click on the timeline, and the keyboard.
    canvas = page["#rows canvas"].bounding_box()
    assert canvas
    page["#rows canvas"].click(position={"x": canvas["width"] * 0.9, "y": 10})
    expect(page[".box"]).to_have_count(0)
    page["#scrub"].press("Home")
    expect(page[".box"]).to_have_count(1)
    page["#play"].click()
    expect(page["#play"]).to_have_text("Pause")
    expect(page["#rows .now"]).to_have_text("not seen")
    expect(page["#play"]).to_have_text("Play")
    rows = list(csv.DictReader(saved(page, "timeline?format=csv").decode().splitlines()))
    lines = saved(page, "timeline?format=jsonl").splitlines()
    report = json.loads(saved(page, "report"))
    assert len(rows) == len(lines) == report["group"]["frames"] == 5 * SECONDS
    assert saved(page, "plot").startswith(b"\x89PNG")
    for width in (360, 800):
        page.page.set_viewport_size({"width": width, "height": 800})
        assert page.page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert findings(page) == []
    # Other options need another analysis.
    page["#scrub"].press("Home")
    page.include("landmarks")
    page["#advice [data-help=again]"].click()
    expect(page[".dot"]).to_have_count(5)
    assert any(one.startswith("POST ?include=landmarks") for one in calls)
    page["#delete"].click()
    expect(page["#drop"]).to_be_visible()
    for selector in ("#recording", "#timeline", "#player", "video"):
        expect(page[selector]).to_be_hidden()
    eventually(lambda: len([one for one in calls if one.startswith("DELETE ")]) == 2)


def test_a_video_that_the_browser_cannot_play_is_still_answered(
    open_page: OpenPage, fake_service: Gateway, tmp_path: Path
) -> None:
    page = open_page(fake_service.url)
    # Chromium does not play this kind of file.
    page.drop(written(tmp_path / "call.avi").read_bytes(), "call.avi", "")
    expect(page["#recording"]).to_be_visible()
    expect(page["#caption"]).to_contain_text("This browser cannot play this type of video.")
    expect(page["#play"]).to_be_hidden()
    expect(page[".frame.blank .box"]).not_to_have_count(0)
    scrub(page, 3.9)
    expect(page["#clock"]).to_have_text(re.compile("^0:03 / "))
    page.page.goto("about:blank")


def test_the_recording_is_deleted_when_the_page_leaves_it(
    open_page: OpenPage, fake_service: Gateway, call: Path, astronaut_jpeg: bytes
) -> None:
    page = open_page(fake_service.url)
    ids: list[str] = []
    page.page.on("response", lambda one: ids.append(one.json()["id"]) if one.status == 202 else None)

    def gone() -> bool:
        return fake_service.client.get(f"/v1/recordings/{ids[-1]}").status_code == 404

    page.drop(call.read_bytes(), "call.webm", "video/webm")
    expect(page["#recording"]).to_be_visible()
    page.drop(astronaut_jpeg)
    expect(page["#answer"]).to_be_visible()
    expect(page["#recording"]).to_be_hidden()
    eventually(gone)
    page.drop(call.read_bytes(), "call.webm", "video/webm")
    expect(page["#recording"]).to_be_visible()
    page.page.goto("about:blank")
    assert len(ids) == 2
    eventually(gone)


def test_an_analysis_can_be_cancelled(open_page: OpenPage, fake_service: Gateway, call: Path) -> None:
    page = open_page(fake_service.url)
    calls = requests(page)
    # The events never come.
    page.page.route("**/events", lambda _: None)
    with page.page.expect_request("**/events"):
        page.drop(call.read_bytes(), "call.webm", "video/webm")
    expect(page["#stage"]).to_be_visible()
    page["#cancel"].click()
    expect(page["#drop"]).to_be_visible()
    expect(page["#work"]).to_be_hidden()
    expect(page["#file"]).to_be_focused()
    page.page.goto("about:blank")
    assert [one.partition(" ")[0] for one in calls].count("DELETE") == 2


def test_errors_of_a_video_say_what_helps(open_page: OpenPage, fake_service: Gateway, call: Path) -> None:
    page = open_page(fake_service.url)
    page.drop(b"Dear Sir or Madam", "letter.webm", "video/webm")
    page.expect_problem("This file is not a video that can be read.")
    expect(page["#problem [data-help=another]"]).to_have_text("Choose another file")
    expect(page["#work"]).to_be_hidden()
    problem = to_problem(Overloaded("the limit of 4 recordings is reached"), "r1").model_dump_json()
    page.page.route(
        "**/v1/recordings",
        lambda route: route.fulfill(
            status=429, headers={"Retry-After": "1"}, content_type=MEDIA_TYPE, body=problem
        ),
    )
    page.drop(call.read_bytes(), "call.webm", "video/webm")
    page.expect_problem("The service is overloaded right now. Wait 1 second.")
    page.page.unroute("**/v1/recordings")
    page["#problem [data-help=again]"].click()
    expect(page["#recording"]).to_be_visible()
    expect(page["#problem"]).to_be_empty()

    def interrupt(route: Route) -> None:
        state = '{"id": "r", "state": "interrupted", "frames": 0}'
        route.fulfill(content_type="text/event-stream", body=f"event: state\r\ndata: {state}\r\n\r\n")

    page.page.route("**/events", interrupt)
    page.drop(call.read_bytes(), "call.webm", "video/webm")
    page.expect_problem("The recording was interrupted.")
    page.page.goto("about:blank")


def test_a_video_that_is_too_large_is_not_sent(open_page: OpenPage, call: Path) -> None:
    size = call.stat().st_size
    with serving(Settings(port=0, recording_limit_bytes=size - 1), fake_engines()) as gateway:
        page = open_page(gateway.url)
        calls = requests(page)
        page.drop(call.read_bytes(), "call.webm", "video/webm")
        expect(page["#problem .lead"]).to_contain_text("are accepted.")
        assert calls == []
        page.page.goto("about:blank")


def test_a_video_waits_for_the_key(open_page: OpenPage, call: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key = add_key(file, "visitor", [Scope.PREDICT], None, None)
    with serving(Settings(port=0, keys_file=file), fake_engines()) as gateway:
        page = open_page(gateway.url)
        page.drop(call.read_bytes(), "call.webm", "video/webm")
        page.expect_problem("This service requires a key.")
        page["#problem [data-help=key]"].click()
        page["#key"].fill(key)
        page["#key"].press("Enter")
        expect(page["#recording"]).to_be_visible()
        expect(page["#problem"]).to_be_empty()
        assert saved(page, "report")
        page.page.goto("about:blank")


def test_in_group_mode_a_video_has_only_the_report_of_the_group(open_page: OpenPage, call: Path) -> None:
    with serving(Settings(port=0, aggregate_only=5), fake_engines()) as gateway:
        page = open_page(gateway.url)
        calls = requests(page)
        page.drop(call.read_bytes(), "call.webm", "video/webm")
        expect(page["#tracks"]).to_contain_text("groups of at least 5 faces")
        expect(page["#tracks"]).to_contain_text("of the frames show a group")
        expect(page[".box"]).to_have_count(0)
        expect(page["#rows li"]).to_have_count(0)
        expect(page["[data-result]:visible"]).to_have_count(1)
        assert not [one for one in calls if one.endswith("/timeline")]
        page.page.goto("about:blank")
