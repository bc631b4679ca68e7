"""The page explains each failure in a sentence, and offers what can help."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.api.shaping import to_problem
from service.core.errors import Overloaded
from service.http.problems import MEDIA_TYPE
from service.settings import Settings
from tests.conftest import serving
from tests.fake_engine import fake_engines
from tests.playground.conftest import OpenPage


def test_a_file_that_is_not_a_picture(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    with page.page.expect_response("**/v1/emotions") as refused:
        page.drop(b"Dear Sir or Madam", "letter.txt", "text/plain")
    page.expect_problem("This file is not a picture that can be read.")
    expect(page["#problem"]).to_contain_text("The data is not an image; send JPEG, ")
    expect(page["#problem .hint"]).to_have_text(f"Request {refused.value.headers['x-request-id']}")
    # The results of the previous photo are gone.
    for selector in (".box", ".face"):
        expect(page[selector]).to_have_count(0)
    expect(page["#answer"]).to_be_hidden()
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    expect(page["#problem"]).to_be_empty()


def test_a_file_that_is_too_large_is_not_sent(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    sent: list[str] = []
    page.page.on("request", lambda request: sent.append(request.url))
    big = tmp_path / "big.jpg"
    big.write_bytes(bytes(20_000_001))
    page["#file"].set_input_files(big)
    page.expect_problem("This file has 20.0 MB; at most 20.0 MB are accepted.")
    assert not [url for url in sent if "/v1/" in url]


def test_a_service_that_was_unreachable_can_be_called_again(
    open_page: OpenPage, astronaut_jpeg: bytes
) -> None:
    page = open_page()
    page.page.route("**/v1/emotions", lambda route: route.abort("connectionrefused"))
    page.drop(astronaut_jpeg)
    page.expect_problem("The service cannot be reached. Check that it is running.")
    page.page.unroute("**/v1/emotions")
    page["#problem button"].click()
    page.expect_status("1 face found.")


def test_a_busy_service_says_when_to_try_again(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    problem = to_problem(Overloaded("the limit of 64 requests in flight is reached"), "r1").model_dump_json()

    def busy(route: Route) -> None:
        route.fulfill(status=429, headers={"Retry-After": "1"}, content_type=MEDIA_TYPE, body=problem)

    page.page.route("**/v1/emotions", busy)
    page.drop(astronaut_jpeg)
    page.expect_problem("The service is overloaded right now. Wait 1 second.")
    page.page.unroute("**/v1/emotions")
    expect(page["#problem button"]).to_have_text("Send it again")
    page["#problem button"].click()
    page.expect_status("1 face found.")


def test_the_page_recovers_when_the_service_was_unreachable_at_first(
    open_page: OpenPage, astronaut_jpeg: bytes
) -> None:
    page = open_page()
    page.page.route("**/service.json", lambda route: route.abort("connectionrefused"))
    page.page.reload()
    page.expect_problem("The service cannot be reached. Check that it is running.")
    page.drop(astronaut_jpeg)
    page.expect_problem("The service cannot be reached. Check that it is running.")
    page.page.unroute("**/service.json")
    page["#problem button"].click()
    page.expect_status("1 face found.")
    expect(page["#version"]).not_to_be_empty()


def test_a_photo_that_comes_before_the_page_knows_its_service_is_answered(
    open_page: OpenPage, astronaut_jpeg: bytes
) -> None:
    page = open_page()
    held: list[Route] = []
    page.page.route("**/service.json", lambda route: held.append(route))
    page.page.reload()
    page.drop(astronaut_jpeg)
    page.expect_status("Looking for faces …")
    held[0].continue_()
    page.expect_status("1 face found.")


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (502, "<h1>Bad gateway</h1>", "The service refused this with status 502."),
        (200, '{"faces": [', "The answer was cut off, or is not from this service."),
    ],
)
def test_an_answer_that_is_not_from_the_service(
    open_page: OpenPage, astronaut_jpeg: bytes, status: int, body: str, sentence: str
) -> None:
    page = open_page()
    page.page.route("**/v1/emotions", lambda route: route.fulfill(status=status, body=body))
    page.drop(astronaut_jpeg)
    page.expect_problem(sentence)


def test_only_the_last_of_two_photos_counts(
    open_page: OpenPage, astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    page = open_page()
    held: list[Route] = []
    page.page.route("**/v1/emotions", lambda route: held.append(route), times=1)
    page.drop(astronaut_jpeg)
    page.expect_status("Looking for faces …")
    page.drop(faceless_jpeg)
    page.expect_status("No face was found. Faces that are very small, covered or turned away may be missed.")
    assert len(held) == 1
    expect(page[".box"]).to_have_count(0)


def test_a_key_is_requested_and_used_but_not_stored(
    open_page: OpenPage, astronaut_jpeg: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    key = add_key(file, "visitor", [Scope.PREDICT], "2/day", None)
    with serving(Settings(port=0, keys_file=file), fake_engines()) as gateway:
        page = open_page(gateway.url)
        expect(page["#docs"]).to_be_hidden()
        page.drop(astronaut_jpeg)
        page.expect_problem("This service requires a key.")
        page["#problem button"].click()
        expect(page["#key"]).to_be_focused()
        page["#key"].fill("xn_wrong")
        page["#key"].press("Enter")
        expect(page["#problem"]).to_contain_text("The key is unknown.")
        page["#key"].fill(key)
        page["#key"].press("Enter")
        page.expect_status("1 face found.")
        expect(page["#snippet"]).to_contain_text("X-API-Key: $EMOTIONS_KEY")
        # With the key, the page can read the model card.
        page["#card summary"].click()
        expect(page["#card-text li"]).not_to_have_count(0)
        page.drop(astronaut_jpeg)
        page.expect_status("1 face found.")
        page.drop(astronaut_jpeg)
        expect(page["#problem .lead"]).to_contain_text("You have sent too much for now. Wait")
        stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        assert key not in page.page.evaluate(stored)
        assert key not in page.page.content()
        page.page.reload()
        expect(page["#key"]).to_have_value("")
        page.page.goto("about:blank")
