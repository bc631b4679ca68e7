"""The camera of the playground. It always shows the astronaut."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from service.api.shaping import to_problem
from service.core.errors import Overloaded
from service.http.problems import MEDIA_TYPE
from tests.conftest import ASTRONAUT_FACE
from tests.playground.browser import CAMERA_PX, PHOTO_IN_CAMERA
from tests.playground.conftest import OpenPage
from tests.playground.visit import overlap

LEFT, TOP, SCALE = PHOTO_IN_CAMERA
FACE = tuple(at * SCALE + shift for at, shift in zip(ASTRONAUT_FACE, (LEFT, TOP, LEFT, TOP), strict=True))
CAMERA_IS_OFF = "document.querySelector('video').srcObject === null"


def test_a_picture_is_taken(open_page: OpenPage) -> None:
    page = open_page()
    page["#camera-start"].click()
    page.expect_status("The camera is on.")
    expect(page["#camera-take"]).to_be_focused()
    page.page.keyboard.press("Enter")
    page.expect_status("1 face found.")
    assert overlap(page.boxes(CAMERA_PX[0])[0], FACE) > 0.7
    # The camera is off again and can be started once more.
    expect(page["video"]).to_be_hidden()
    assert page.page.evaluate(CAMERA_IS_OFF)
    expect(page["#camera-start"]).to_be_focused()


def test_live_mode_answers_until_it_is_stopped(open_page: OpenPage) -> None:
    page = open_page()
    page["#camera-start"].click()
    page["#camera-live"].click()
    page.expect_status("1 face found.")
    expect(page["#camera-live"]).to_have_attribute("aria-pressed", "true")
    assert overlap(page.boxes(CAMERA_PX[0])[0], FACE) > 0.7
    # A slow click and the focus survive new answers.
    page["details.face summary"].hover()
    page.page.mouse.down()
    for _ in range(3):
        with page.page.expect_response("**/v1/emotions"):
            pass
    page.page.mouse.up()
    expect(page["details.face[open]"]).to_have_count(0)
    page[".box"].focus()
    for _ in range(3):
        with page.page.expect_response("**/v1/emotions"):
            pass
    expect(page["details.face[open]"]).to_have_count(0)
    expect(page[".box"]).to_be_focused()
    page["#camera-live"].click()
    page.expect_status("The camera is on.")
    expect(page[".box"]).to_have_count(0)
    page["#camera-stop"].click()
    expect(page["#drop"]).to_be_visible()
    assert page.page.evaluate(CAMERA_IS_OFF)


def test_live_mode_waits_as_long_as_retry_after(open_page: OpenPage) -> None:
    page = open_page()
    problem = to_problem(Overloaded("busy"), "r1").model_dump_json()
    requests: list[str] = []

    def busy(route: Route) -> None:
        requests.append(route.request.url)
        route.fulfill(status=429, headers={"Retry-After": "1"}, content_type=MEDIA_TYPE, body=problem)

    page.page.route("**/v1/emotions", busy, times=1)
    page["#camera-start"].click()
    page["#camera-live"].click()
    page.expect_problem("The service is overloaded right now. Try again in 1 second.")
    page.expect_status("1 face found.")
    expect(page["#problem"]).to_be_empty()
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "navigator.mediaDevices.getUserMedia = async () => {"
            " throw new DOMException('', 'NotAllowedError'); };",
            "The browser blocks the camera. Allow the camera beside the page's address, then try again.",
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
