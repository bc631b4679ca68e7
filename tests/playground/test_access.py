"""The playground works by keyboard, with a screen reader, in both colour schemes and on a narrow screen."""

from __future__ import annotations

import json
from pathlib import Path

import axe_playwright_python
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import expect

from tests.conftest import encoded
from tests.playground.conftest import OpenPage
from tests.playground.samples import PLAYGROUND
from tests.playground.visit import Visit

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def findings(page: Visit) -> list[str]:
    """The violations that axe-core finds in the current page, of any impact."""
    if not page.page.evaluate("typeof axe === 'object'"):
        page.page.evaluate(AXE)
    found = page.page.evaluate("axe.run().then((result) => result.violations)")
    return [f"{item['impact']} {item['id']}: {[node['html'] for node in item['nodes']]}" for item in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(open_page: OpenPage, astronaut: NDArray[np.uint8], scheme: str) -> None:
    page = open_page(color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1280, "height": 900})
    red, green, blue = json.loads(
        page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        .replace("rgb(", "[")
        .replace(")", "]")
    )
    assert (max(red, green, blue) < 60) == (scheme == "dark")
    assert findings(page) == []
    page["#options summary"].click()
    page["#card summary"].click()
    expect(page["#card-text li"]).not_to_have_count(0)
    page.include("landmarks", "quality", "experts", "engagement")
    # The second photo is so dark that one of the two faces is uncertain.
    page.drop(encoded(np.concatenate([astronaut, astronaut // 6], axis=1)))
    expect(page[".face"]).to_have_count(2)
    assert findings(page) == []
    page["#file"].set_input_files(PLAYGROUND / "sample-crowd.jpg")
    expect(page[".face"]).to_have_count(30)
    page[".count"].first.click()
    assert findings(page) == []
    page["#camera-start"].click()
    page["#camera-live"].click()
    expect(page["#rows li"]).to_have_count(1)
    assert findings(page) == []
    page["#camera-live"].click()
    expect(page[".tracks"]).to_be_visible()
    assert findings(page) == []
    page.page.set_viewport_size({"width": 360, "height": 740})
    page["#file"].set_input_files([PLAYGROUND / "sample-portrait.jpg", PLAYGROUND / "icon.svg"])
    expect(page['#strip [data-state="failed"]']).to_have_count(1)
    assert findings(page) == []
    page.drop(b"nothing")
    page.expect_problem("This file is not a picture that can be read.")
    assert findings(page) == []


def test_the_page_works_by_keyboard_alone(
    open_page: OpenPage, astronaut: NDArray[np.uint8], tmp_path: Path
) -> None:
    photo = tmp_path / "two.png"
    photo.write_bytes(encoded(np.tile(astronaut, (1, 3, 1)), "PNG"))
    page = open_page()
    # With a listener, the browser leaves the choice of files to the test from now on. `expect_file_chooser`
    # alone may take effect too late.
    page.page.on("filechooser", lambda _: None)
    keys = page.page.keyboard
    reached = []

    def press_tab() -> str:
        keys.press("Tab")
        name: str = page.page.evaluate("document.activeElement.id || document.activeElement.className")
        reached.append(name)
        return name

    while press_tab() != "file":
        assert len(reached) < 10, reached
    # The label shows the focus, because the input itself is invisible.
    outline = "getComputedStyle(document.querySelector('label[for=file]')).outlineStyle"
    assert page.page.evaluate(outline) == "solid"
    with page.page.expect_file_chooser() as chooser:
        keys.press("Enter")
    chooser.value.set_files(photo)
    page.expect_status("3 faces found.")
    keys.press("Shift+Tab")
    expect(page[".box"].nth(0)).to_be_focused()
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    keys.press("ArrowLeft")
    expect(page[".box"].nth(1)).to_be_focused()
    keys.press("Enter")
    # Enter opens the face in the list.
    second = page["#face-list > li"].nth(1)
    expect(second.locator("summary")).to_be_focused()
    expect(second.locator("details")).to_have_attribute("open", "")
    keys.press("Enter")
    expect(second.locator("details")).not_to_have_attribute("open", "")
    # The name of a box describes its face to screen readers.
    name = page[".box"].nth(1).get_attribute("aria-label")
    assert name
    assert name.startswith("Face 2: happiness, ")
    page["#include input"].first.focus()
    keys.press("Space")
    expect(page[".dot"]).to_have_count(15)
    press_tab()
    assert reached[-1] == ""  # the next checkbox, which has no id: nothing traps the focus
    page["body"].press("Home")


def test_changes_are_announced(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    for region in ("#status", "#said"):
        expect(page[region]).to_have_role("status")
    expect(page["#problem"]).to_have_role("alert")
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    expect(page["table.bars"]).to_have_accessible_name("Probabilities of face 1")
    expect(page["#boxes"]).to_have_accessible_name("Faces in the photo; arrow keys move between boxes")


def test_the_page_names_its_limits_before_any_photo(open_page: OpenPage) -> None:
    page = open_page()
    for sentence in ("It names expressions", "It is not for decisions about people", "Nothing is stored."):
        expect(page["#about"]).to_contain_text(sentence)
    expect(page["#docs"]).to_be_visible()
    page["#card summary"].click()
    expect(page["#card-text"]).to_contain_text("expressnet_moe, version ")
