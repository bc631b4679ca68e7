"""The page takes photos in every way that it offers, and shows the answers at the right place."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Route, expect

from tests.conftest import ASTRONAUT_FACE, as_stored, encoded
from tests.playground.conftest import OpenPage
from tests.playground.visit import Visit, overlap

WIDTHS = (360, 800, 1440)


def test_a_dropped_photo_has_its_box_over_the_face_at_any_width(
    open_page: OpenPage, astronaut_jpeg: bytes
) -> None:
    page = open_page()
    page.drop(astronaut_jpeg, "<b>astro's photo</b>.jpg")
    page.expect_status("1 face found.")
    size = f"512 x 512 px, {len(astronaut_jpeg) / 1e3:.0f} kB"
    expect(page["#caption"]).to_have_text(f"<b>astro's photo</b>.jpg, {size}.")
    for width in WIDTHS:
        page.page.set_viewport_size({"width": width, "height": 900})
        (box,) = page.boxes(512)
        assert overlap(box, ASTRONAUT_FACE) > 0.7
        # The page needs no horizontal scrolling.
        assert page.page.evaluate("document.scrollingElement.scrollWidth") <= width
    expect(page[".box > span"]).to_have_text("1 happiness")
    expect(page[".face .emotion"]).to_have_text("happiness")
    expect(page[".face .verdict"]).to_have_text("certain")
    rows = page[".bars tbody tr"].all_inner_texts()
    assert len(rows) == 8
    assert [row.split()[0] for row in rows[:2]] == ["neutral", "happiness"]
    filled = [bar.bounding_box() for bar in page[".bars .bar > span:first-child"].all()]
    tracks = [bar.bounding_box() for bar in page[".bars .bar"].all()]
    shares = [f["width"] / t["width"] for f, t in zip(filled, tracks, strict=True) if f and t]
    answer = json.loads(page["#json"].inner_text())
    assert shares == pytest.approx(list(answer["faces"][0]["probabilities"].values()), abs=0.01)


def test_a_sideways_photo_is_shown_and_marked_upright(
    open_page: OpenPage, astronaut: NDArray[np.uint8]
) -> None:
    upright = Image.fromarray(astronaut).crop((100, 0, 400, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    page = open_page()
    page.drop(encoded(as_stored(upright, 6), exif=exif.tobytes()))
    page.expect_status("1 face found.")
    frame = page[".frame"].bounding_box()
    assert frame
    assert frame["width"] / frame["height"] == pytest.approx(300 / 400, abs=0.01)
    (box,) = page.boxes(300)
    left, top, right, bottom = ASTRONAUT_FACE
    assert overlap(box, (left - 100, top, right - 100, bottom)) > 0.7


def test_a_photo_is_pasted(open_page: OpenPage, astronaut: NDArray[np.uint8]) -> None:
    page = open_page()
    page.page.keyboard.press("Control+V")
    page.expect_problem("There is no picture in the clipboard.")
    page.paste(encoded(astronaut, "PNG"))
    page.expect_status("1 face found.")
    expect(page["#problem"]).to_be_empty()
    assert overlap(page.boxes(512)[0], ASTRONAUT_FACE) > 0.7


def test_many_faces_are_numbered_and_linked_with_their_list(
    open_page: OpenPage, astronaut: NDArray[np.uint8]
) -> None:
    page = open_page()
    page.drop(encoded(np.tile(astronaut, (2, 3, 1))))
    page.expect_status("6 faces found.")
    assert page[".box > span"].all_inner_texts() == ["1", "2", "3", "4", "5", "6"]
    expect(page["details.face[open]"]).to_have_count(1)
    expect(page[".box.chosen"]).to_have_text("1")
    page[".box"].nth(4).click()
    expect(page["#face-list > li"].nth(4).locator("details")).to_have_attribute("open", "")
    expect(page[".box.chosen"]).to_have_text("5")
    # The longest words of a card also fit on a phone.
    page.page.set_viewport_size({"width": 360, "height": 740})
    page["#face-list"].evaluate("list => list.querySelector('.verdict').textContent = 'uncertain'")
    for cards in ("#face-list", "#face-list summary"):
        assert page[cards].first.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
    # A face that is opened in the list is marked in the photo.
    page["#face-list > li"].nth(2).locator("summary").click()
    expect(page[".box.chosen"]).to_have_text("3")


def test_a_photo_without_a_face_is_no_error(open_page: OpenPage, faceless_jpeg: bytes) -> None:
    page = open_page()
    page.drop(faceless_jpeg)
    page.expect_status("No face was found. Faces that are very small, covered or turned away may be missed.")
    expect(page[".box"]).to_have_count(0)
    expect(page["#problem"]).to_be_empty()
    expect(page["#answer"]).to_be_visible()
    # The page offers what may help.
    with page.page.expect_request("**/v1/emotions?min_face_px=16&min_detection_confidence=0.6"):
        page["#advice [data-help=smaller]"].click()
    page["#advice [data-help=whole]"].click()
    page.expect_status(re.compile("^1 face found"))
    expect(page["#advice"]).to_be_empty()


def test_a_file_that_the_browser_cannot_show_is_still_answered(
    open_page: OpenPage, astronaut: NDArray[np.uint8]
) -> None:
    page = open_page()
    page.drop(encoded(astronaut[:400, 100:400], "HEIF"), "phone.heic", "")
    page.expect_status("1 face found.")
    expect(page["#caption"]).to_contain_text("This browser cannot show this type of file")
    expect(page["#image"]).to_be_hidden()
    expect(page["#snippet"]).to_contain_text("Content-Type: image/heic")
    left, top, right, bottom = ASTRONAUT_FACE
    assert overlap(page.boxes(300)[0], (left - 100, top, right - 100, bottom)) > 0.7


def test_optional_parts_of_an_answer_are_shown(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    with page.page.expect_response(lambda answer: "engagement" in answer.url):
        page.include("landmarks", "quality", "experts", "engagement")
    expect(page[".dot"]).to_have_count(5)
    expect(page[".part h3"]).to_have_text(["Quality", "Experts", "Engagement"])
    face = json.loads(page["#json"].inner_text())["faces"][0]
    expect(page[".part dl"]).to_contain_text(f"{face['quality']['size_px']:.0f} px")
    assert len(page[".mixture li"].all()) == 8
    assert len(page[".mixture li.on"].all()) == sum(w > 0 for row in face["experts"].values() for w in row)
    expect(page[".part"].last).to_contain_text(f"{face['engagement']['index']:.2f}")
    # The dot is at the eye in the answer.
    image, dot = page["#image"].bounding_box(), page[".dot"].first.bounding_box()
    assert image
    assert dot
    dot_x_px = (dot["x"] + dot["width"] / 2 - image["x"]) * 512 / image["width"]
    assert dot_x_px == pytest.approx(face["landmarks"]["left_eye"]["x"], abs=2)


def test_faces_beyond_max_faces_are_mentioned(open_page: OpenPage, astronaut: NDArray[np.uint8]) -> None:
    page = open_page()
    page["#options summary"].click()
    page["#max_faces"].fill("2")
    page.drop(encoded(np.tile(astronaut, (1, 3, 1))))
    page.expect_status(re.compile("^3 faces found, the largest 2 shown"))
    page["#max_faces"].fill("1")
    page["#max_faces"].blur()
    page.expect_status(re.compile("^3 faces found, the largest shown"))


def test_the_options_are_sent_with_the_request(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    page["#options summary"].click()
    page["#max_faces"].fill("500")
    page["#max_faces"].blur()
    page.drop(astronaut_jpeg)
    page.expect_problem("The request is not valid.")
    expect(page["#problem"]).to_contain_text("Max_faces: Input should be less than or equal to 128.")
    page["#problem [data-help=reset]"].click()
    page.expect_status("1 face found.")
    expect(page["#max_faces"]).to_have_value("32")
    page["#max_faces"].fill("5")
    page["#whole"].check()
    # The whole photo is not a face, so its emotion and verdict do not matter.
    page.expect_status(re.compile("^1 face found"))
    expect(page["#snippet"]).to_contain_text("/v1/emotions?max_faces=5&detect=false'")
    assert overlap(page.boxes(512)[0], (0, 0, 512, 512)) > 0.98


def test_the_prior_is_chosen(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    expect(page["#prior"]).to_have_value("balanced")
    face = json.loads(page["#json"].inner_text())["faces"][0]
    words = f"About {math.floor(face['agreement'] + 0.5)} of 10 people would say happiness."
    expect(page[".face .hint"].last).to_have_text(words)
    with page.page.expect_request("**/v1/emotions?prior=training"):
        page["#prior"].select_option("training")
    expect(page["#json"]).to_contain_text('"prior": "training"')
    expect(page["#shares"]).to_be_hidden()
    page["#prior"].select_option("own")
    page["#shares"].fill("happiness=2,joy=1")
    page["#shares"].blur()
    page.expect_problem("The request is not valid.")
    expect(page["#problem"]).to_contain_text("'joy' is none of")
    page["#shares"].fill("happiness=0.02,neutral=0.98")
    page["#shares"].blur()
    expect(page["#json"]).to_contain_text('"prior": "happiness=0.02,neutral=0.98"')
    page["#shares"].fill("nothing")
    page["#shares"].blur()
    page["#problem [data-help=reset]"].click()
    page.expect_status("1 face found.")
    expect(page["#prior"]).to_have_value("balanced")
    expect(page["#json"]).to_contain_text('"prior": "balanced"')


def test_the_page_shows_the_times_of_the_service(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    with page.page.expect_response("**/v1/emotions") as sent:
        page.drop(astronaut_jpeg)
    timing = sent.value.headers["server-timing"]
    stages = dict(part.split(";dur=") for part in timing.split(", "))
    # The page rounds halves up. Python rounds them to even numbers.
    whole_ms = math.floor(float(stages["total"]) + 0.5)
    expect(page["#timings"]).to_contain_text(f"{whole_ms:,} ms in the service")
    shown = page["#timings dd"].all_inner_texts()
    assert shown[:-1] == [f"{float(ms):.1f} ms" for name, ms in stages.items() if name != "total"]
    bar, detect = page[".stages"].bounding_box(), page[".stages .stage-detect"].bounding_box()
    assert bar
    assert detect
    share = float(stages["detect"]) / float(stages["total"])
    assert detect["width"] / bar["width"] == pytest.approx(share, abs=0.05)


def change_answers(page: Visit, change: Callable[[dict[str, Any]], None]) -> None:
    """Change each answer of the service before the page gets it."""

    def intercept(route: Route) -> None:
        answer = route.fetch()
        document = answer.json()
        change(document)
        route.fulfill(response=answer, json=document)

    page.page.route("**/v1/emotions*", intercept)


def test_an_uncertain_face_shows_its_reasons(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()

    def make_uncertain(answer: dict[str, Any]) -> None:
        answer["faces"][0] |= {"verdict": "uncertain", "reasons": ["low_confidence", "too_dark", "a_new_one"]}

    change_answers(page, make_uncertain)
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found, 1 uncertain.")
    expect(page[".face .verdict"]).to_have_text("uncertain")
    expect(page[".box > span"]).to_have_text("1 happiness?")
    assert page[".reasons li"].all_inner_texts() == [
        "No emotion is clearly ahead of the others.",
        "The face is too dark.",
        "A new one.",
    ]
    # The page does not rely on colour alone.
    expect(page[".box"]).to_have_css("border-top-style", "dashed")
    expect(page[".bars .bar.uncertain > span"].first).to_have_css(
        "background-image", re.compile("repeating-linear")
    )


def test_a_heatmap_is_at_its_place_in_the_answer(
    open_page: OpenPage, astronaut: NDArray[np.uint8], astronaut_jpeg: bytes
) -> None:
    page = open_page()
    png = base64.b64encode(encoded(astronaut[:16, :16], "PNG")).decode()
    box = {"x": 128.0, "y": 64.0, "width": 256.0, "height": 128.0}

    def add_heatmap(answer: dict[str, Any]) -> None:
        answer["faces"][0]["heatmap"] = {"png": png, "box": box, "largest_fall": 0.25}

    change_answers(page, add_heatmap)
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    expect(page[".part"]).to_contain_text("lowers the probability by up to 25 %")
    photo, heatmap = page["#image"].bounding_box(), page[".map"].bounding_box()
    assert photo
    assert heatmap
    shares = [(heatmap[side] - photo[side]) / photo["width"] for side in ("x", "y")]
    assert shares == pytest.approx([0.25, 0.125], abs=0.01)
    assert [heatmap[side] / photo["width"] for side in ("width", "height")] == pytest.approx(
        [0.5, 0.25], abs=0.01
    )
    # The page abbreviates base64, but a copied answer has all of it.
    expect(page["#json"]).to_contain_text("letters)")
    page["button[data-of=json]"].click()
    expect(page["#said"]).to_have_text("Copied.")
    copied = json.loads(page.page.evaluate("navigator.clipboard.readText()"))
    assert copied["faces"][0]["heatmap"]["png"] == png


@pytest.mark.parametrize("enough", [True, False])
def test_a_service_in_group_mode_shows_no_single_face(
    open_page: OpenPage, astronaut_jpeg: bytes, enough: bool
) -> None:
    page = open_page()

    def make_group(answer: dict[str, Any]) -> None:
        (face,) = answer.pop("faces")
        answer["group"] = {"min_faces": 5} | (
            {"face_count": 7, "probabilities": face["probabilities"]} if enough else {}
        )

    change_answers(page, make_group)
    page.drop(astronaut_jpeg)
    page.expect_status("7 faces together." if enough else "Fewer than 5 faces were found.")
    expect(page["#group"]).to_contain_text("groups of at least 5 faces")
    expect(page["#group tr"]).to_have_count(8 if enough else 0)
    expect(page[".box"]).to_have_count(0)
