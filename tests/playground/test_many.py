"""Several photos, and photos of many people: the page counts, sorts and filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import FilePayload, Request, Route, expect

from service.core.manifest import EMOTIONS
from tests.conftest import encoded
from tests.playground.conftest import OpenPage
from tests.playground.visit import Visit


def answer_with(page: Visit, *faces: tuple[str, float, str, float]) -> None:
    """Answer each photo with these faces: emotion, confidence, verdict, and width in px of 512 px."""

    def face(place: int, emotion: str, confidence: float, verdict: str, width: float) -> dict[str, Any]:
        rest = (1 - confidence) / (len(EMOTIONS) - 1)
        return {
            "box": {"x": 100.0 * place, "y": 100.0, "width": width, "height": width},
            "detection_confidence": 0.99,
            "emotion": emotion,
            "confidence": confidence,
            "verdict": verdict,
            "probabilities": {name: confidence if name == emotion else rest for name in EMOTIONS},
        } | ({} if verdict == "certain" else {"reasons": ["too_dark"]})

    def fulfil(route: Route) -> None:
        answer = {
            "request_id": "r1",
            "model": {"name": "expressnet_moe", "version": "1"},
            "image": {"width": 512, "height": 512},
            "faces_found": len(faces),
            "faces": [face(place, *one) for place, one in enumerate(faces)],
        }
        route.fulfill(json=answer)

    page.page.route("**/v1/emotions*", fulfil)


def photo(name: str, content: bytes) -> FilePayload:
    return FilePayload(name=name, mimeType="image/jpeg", buffer=content)


def numbers(page: Visit) -> list[str]:
    """The numbers of the faces in the list, from the top."""
    return [text.removeprefix("Face ") for text in page[".face .number"].all_text_contents()]


@pytest.mark.parametrize(("sample", "faces"), [("portrait", 1), ("crowd", 30), ("hard", 4)])
def test_a_sample_is_answered_with_a_click(open_page: OpenPage, sample: str, faces: int) -> None:
    page = open_page()
    page[f'#samples button:has(img[src$="sample-{sample}.jpg"])'].click()
    expect(page["#caption"]).to_contain_text(f"sample-{sample}.jpg, ")
    expect(page[".box"]).to_have_count(faces)
    if sample == "hard":
        expect(page[".count"].last).to_contain_text("uncertain")


def test_several_photos_are_answered_and_counted_together(
    open_page: OpenPage, astronaut: NDArray[np.uint8]
) -> None:
    page = open_page()
    sent: list[Request] = []
    page.page.on("request", lambda request: sent.append(request))
    page["#file"].set_input_files(
        [
            photo("one.jpg", encoded(astronaut)),
            FilePayload(name="notes.txt", mimeType="text/plain", buffer=b"notes"),
            photo("three.jpg", encoded(np.tile(astronaut, (1, 3, 1)))),
        ]
    )
    expect(page["#strip li"]).to_have_count(3)
    expect(page['#strip [data-state="done"]']).to_have_count(2)
    expect(page["#total"]).to_have_text("2 photos, 4 faces: 4 happiness.")
    page.expect_status("1 face found.")
    page["#strip button"].nth(2).click()
    page.expect_status("3 faces found.")
    expect(page["#strip button"].nth(2)).to_have_attribute("aria-current", "true")
    expect(page["#caption"]).to_contain_text("three.jpg, 1536 x 512 px")
    # A photo that fails does not hide the others.
    page["#strip button"].nth(1).click()
    page.expect_problem("This file is not a picture that can be read.")
    expect(page["#strip"]).to_be_visible()
    assert len([request for request in sent if "/v1/emotions" in request.url]) == 3
    page["#strip button"].nth(0).click()
    with page.page.expect_download() as saved:
        page["#save-json"].click()
    answers = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert [(answer["path"], len(answer["faces"])) for answer in answers] == [
        ("one.jpg", 1),
        ("three.jpg", 3),
    ]
    with page.page.expect_download() as saved:
        page["#save-csv"].click()
    rows = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["path", "one.jpg", "notes.txt", *["three.jpg"] * 3]


def test_a_key_that_is_missing_stops_the_other_photos(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    sent: list[str] = []

    def refuse(route: Route) -> None:
        sent.append(route.request.url)
        route.fulfill(status=401, json={"code": "unauthorized", "status": 401})

    page.page.route("**/v1/emotions", refuse)
    page["#file"].set_input_files([photo(f"{index}.jpg", astronaut_jpeg) for index in range(6)])
    expect(page['#strip [data-state="failed"]']).to_have_count(6)
    assert len(sent) <= 2  # that many are sent at a time


def test_the_largest_certain_face_comes_first(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    answer_with(
        page,
        ("happiness", 0.97, "uncertain", 90),
        ("sadness", 0.8, "certain", 80),
        ("anger", 0.9, "certain", 70),
    )
    page.drop(astronaut_jpeg)
    page.expect_status("3 faces found, 1 uncertain.")
    assert numbers(page) == ["2", "3", "1"]
    expect(page["#face-list > li"].first.locator("details")).to_have_attribute("open", "")
    expect(page[".box.chosen"]).to_have_attribute("aria-label", "Face 2: sadness, 80 %, certain")
    # The list says why a probability above the threshold is not enough.
    expect(page[".face.uncertain .why"]).to_have_text("Too dark")
    page["#face-list > li"].last.locator("summary").click()
    expect(page[".reasons"]).to_contain_text("although the probability is high enough")


def test_faces_are_counted_filtered_and_sorted(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    answer_with(
        page,
        ("neutral", 0.7, "certain", 60),
        ("happiness", 0.5, "uncertain", 50),
        ("happiness", 0.9, "certain", 40),
        ("happiness", 0.8, "certain", 30),
        ("fear", 0.6, "certain", 20),
    )
    page.drop(astronaut_jpeg)
    page.expect_status("5 faces found, 1 uncertain.")
    counts = page[".count"]
    expect(counts).to_have_text(["happiness 2", "neutral 1", "fear 1", "uncertain 1"])
    assert numbers(page) == ["1", "3", "4", "5", "2"]
    counts.nth(0).click()
    expect(counts.nth(0)).to_have_attribute("aria-pressed", "true")
    assert numbers(page) == ["3", "4"]
    expect(page[".box.faded"]).to_have_count(3)
    counts.nth(0).click()
    expect(page[".box.faded"]).to_have_count(0)
    orders = {"confidence": "34152", "emotion": "53421", "number": "12345"}
    for order, expected in orders.items():
        page["#order"].select_option(order)
        assert "".join(numbers(page)) == expected


def test_the_threshold_of_the_model_is_marked_on_each_bar(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()

    def change(route: Route) -> None:
        answer = route.fetch()
        cards = answer.json()
        for card in cards["models"]:
            if card["kind"] == "classifier":
                card["verdict"]["threshold"] = 0.25
        route.fulfill(response=answer, json=cards)

    page.page.route("**/v1/models", change)
    page.page.reload()
    answer_with(page, ("happiness", 0.254, "certain", 60), ("happiness", 0.246, "uncertain", 50))
    page.drop(astronaut_jpeg)
    expect(page["table.bars tfoot"].first).to_have_text(
        "The line marks 25 %: an answer with less is never certain."
    )
    # Rounded, both would be 25 %.
    expect(page[".face .confidence"]).to_have_text(["25.4 %", "24.6 %"])
    bar, mark = (page[f".bars .top {name}"].first.bounding_box() for name in (".bar", ".threshold"))
    assert bar
    assert mark
    assert (mark["x"] - bar["x"]) / bar["width"] == pytest.approx(0.25, abs=0.02)


def test_each_emotion_has_a_colour_and_a_drawn_face_of_its_own(open_page: OpenPage) -> None:
    page = open_page()
    expect(page["#labels li"]).to_have_text(list(EMOTIONS))
    looks = page["#labels .glyph"].evaluate_all(
        "all => all.map((one) => [getComputedStyle(one.firstChild).fill, one.lastChild.getAttribute('d')])"
    )
    for part in zip(*looks, strict=True):
        assert len(set(part)) == len(EMOTIONS)


@pytest.mark.parametrize("height", [640, 800])
def test_on_a_phone_the_answer_is_on_the_first_screen(
    open_page: OpenPage, astronaut_jpeg: bytes, height: int
) -> None:
    page = open_page(viewport={"width": 360, "height": height})
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    for part in (".emotion", ".confidence", ".verdict"):
        expect(page[f".face {part}"]).to_be_in_viewport(ratio=1)
    expect(page["#image"]).to_be_in_viewport(ratio=1)
    page.drop(b"nothing")
    if height == 800:
        expect(page["#problem button"]).to_be_in_viewport(ratio=1)
