"""An answer leaves the page as a program, as a file and as a marked photo."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.conftest import ASTRONAUT_FACE
from tests.playground.conftest import OpenPage
from tests.playground.visit import Visit

NAME = "it's a photo; rm $HOME.jpg"


def copied(page: Visit, button: str) -> str:
    """What the button copies to the clipboard."""
    page["#said"].evaluate("said => said.textContent = ''")
    page[button].click()
    expect(page["#said"]).to_have_text("Copied.")
    text: str = page.page.evaluate("navigator.clipboard.readText()")
    return text


def saved(page: Visit, button: str) -> tuple[str, bytes]:
    """Name and content of the file that the button saves."""
    with page.page.expect_download() as download:
        page[button].click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("node")), reason="not installed: curl, node")
def test_each_program_gives_the_same_answer(
    open_page: OpenPage, astronaut_jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(astronaut_jpeg)
    page = open_page()
    page.include("landmarks", "quality")
    page.drop(astronaut_jpeg, NAME)
    page.expect_status("1 face found.")
    answer = json.loads(copied(page, "button[data-of=json]"))

    def run(language: str, *command: str) -> str:
        page[f'#languages input[value="{language}"]'].check()
        program = copied(page, "button[data-of=snippet]")
        assert program == page["#snippet"].inner_text()
        ran = subprocess.run([*command, program], cwd=tmp_path, capture_output=True, check=True, timeout=60)
        return ran.stdout.decode()

    assert json.loads(run("curl", "sh", "-c"))["faces"] == answer["faces"]
    assert ast.literal_eval(run("Python", sys.executable, "-c")) == answer["faces"]
    assert "emotion: 'happiness'" in run("JavaScript", "node", "--input-type=module", "--eval")


@pytest.mark.skipif(shutil.which("node") is None, reason="not installed: node")
def test_programs_read_the_key_from_the_environment(
    open_page: OpenPage, astronaut_jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(astronaut_jpeg)
    page = open_page()
    # The field is hidden, because this service has no keys. It accepts any.
    page["#key"].evaluate("key => key.value = 'xn_secret'")
    page.drop(astronaut_jpeg)
    page.expect_status("1 face found.")
    for language, command in (
        ("Python", [sys.executable, "-c"]),
        ("JavaScript", ["node", "--input-type=module", "-e"]),
    ):
        page[f'#languages input[value="{language}"]'].check()
        program = page["#snippet"].inner_text()
        assert "xn_secret" not in program
        assert "EMOTIONS_KEY" in program
        environment = os.environ | {"EMOTIONS_KEY": "xn_other"}
        subprocess.run([*command, program], cwd=tmp_path, env=environment, check=True, timeout=60)


def test_an_answer_is_saved_as_json_and_as_csv(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    page.include("quality")
    page.drop(astronaut_jpeg, 'a "b", c.jpg')
    page.expect_status("1 face found.")
    name, content = saved(page, "#save-json")
    answer = json.loads(content)
    assert name == "answer.json"
    assert answer == json.loads(copied(page, "button[data-of=json]"))
    name, content = saved(page, "#save-csv")
    (row,) = csv.DictReader(io.StringIO(content.decode()))
    assert name == "faces.csv"
    (face,) = answer["faces"]
    assert (row["path"], row["face"], row["emotion"]) == ('a "b", c.jpg', "0", "happiness")
    assert float(row["probabilities.happiness"]) == face["probabilities"]["happiness"]
    assert float(row["quality.size_px"]) == face["quality"]["size_px"]
    assert (row["image_width"], row["faces_found"]) == ("512", "1")


def test_the_marked_photo_has_a_box_and_a_label(open_page: OpenPage, astronaut_jpeg: bytes) -> None:
    page = open_page()
    page.drop(astronaut_jpeg, "ada.jpg")
    page.expect_status("1 face found.")
    name, content = saved(page, "#save-picture")
    assert name == "ada-faces.jpg"
    marked = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)
    original = np.asarray(Image.open(io.BytesIO(astronaut_jpeg)).convert("RGB"), dtype=int)
    assert marked.shape == original.shape
    changed = np.abs(marked - original).max(axis=2) > 60
    left, top, right, bottom = ASTRONAUT_FACE
    # The box and its label change pixels around the face, and none inside it or far away.
    assert changed.sum() > 500
    assert changed[top + 30 : bottom - 15, left + 15 : right - 15].mean() < 0.01
    assert changed[300:].mean() < 0.001
