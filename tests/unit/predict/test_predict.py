"""The output, the files and the errors of `expressnet predict`, with scripted engines."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import Result

from service.assembly import Engines
from service.cli.predict import DECODE_BUDGET_S, patient
from service.core.arrays import Classification, Faces
from service.core.deadline import Deadline
from service.core.errors import EngineUnavailable
from service.predict import run as run_module
from service.settings import Settings
from tests.conftest import serving
from tests.fake_engine import FakeClassifier, FakeDetector, fake_engines
from tests.scenes import video
from tests.unit.predict.conftest import Expressnet


def rows_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_lines_have_the_answers_of_the_api(expressnet: Expressnet, photos: Path) -> None:
    result = expressnet("predict", photos, "--include", "landmarks,experts")
    assert result.exit_code == 1  # one file is no photo
    two, none, one, torn = rows_of(result)
    assert [Path(row["path"]).name for row in (two, none, one, torn)] == [
        *("two.png", "none.jpg", "one.jpg", "torn.jpg")
    ]
    with serving(Settings(port=0), fake_engines()) as gateway:
        for row in (two, none, one):
            answer = gateway.post(Path(row["path"]).read_bytes(), include="landmarks,experts").json()
            assert {key: row[key] for key in ("model", "image", "faces_found", "faces")} == {
                key: answer[key] for key in ("model", "image", "faces_found", "faces")
            }
        problem = gateway.post(Path(torn["path"]).read_bytes()).json()
    assert torn["problem"] == {key: problem[key] for key in ("code", "title", "detail")}
    assert one["file"]["bytes"] == Path(one["path"]).stat().st_size
    assert one["query"] == {"include": ["landmarks", "experts"]}
    assert "4 images, 3 faces in" in result.stderr
    assert "; 1 could not be answered" in result.stderr


def test_csv_has_a_line_for_each_face_and_for_each_image_without_faces(
    expressnet: Expressnet, photos: Path
) -> None:
    result = expressnet("predict", photos, "--format", "csv", "--include", "quality,engagement")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(Path(row["path"]).name, row["faces"], row["face"]) for row in rows] == [
        *(("two.png", "2", "0"), ("two.png", "2", "1"), ("none.jpg", "0", ""), ("one.jpg", "1", "0")),
        ("torn.jpg", "", ""),
    ]
    assert rows[0]["query"] == "include=quality,engagement"
    assert rows[0]["image_width"] == "1024"
    assert rows[0]["emotion"] == "happiness"
    assert float(rows[0]["probabilities.happiness"]) == float(rows[0]["confidence"]) > 0.6
    assert float(rows[0]["quality.size_px"]) == pytest.approx(87, abs=1)
    assert float(rows[0]["engagement.index"]) == pytest.approx(0.6 * float(rows[0]["confidence"]), abs=1e-5)
    assert rows[-1]["problem"] == "invalid_image"
    assert "landmarks.nose.x" not in rows[0]


def test_a_table_names_faces_and_problems(expressnet: Expressnet, photos: Path) -> None:
    result = expressnet("predict", photos, "--format", "table", env={"COLUMNS": "100"})
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["image", "face", "emotion", "sure", "verdict", "box"]
    assert lines[0].split()[1:3] == ["0", "happiness"]
    assert lines[1].split()[:2] == ["1", "happiness"]
    assert "87x111 at 181,61" in lines[0]
    assert "no face" in lines[2]
    assert "invalid_image: the data is not an image" in lines[4]


def test_faces_beyond_max_faces_are_counted_in_every_form(expressnet: Expressnet, photos: Path) -> None:
    options = ("predict", photos, "--max-faces", "1", "--format")
    table = expressnet(*options, "table", env={"COLUMNS": "100"}).stdout.splitlines()
    assert table[2].split() == ["1", "more"]
    (row, *_) = rows_of(expressnet(*options, "jsonl"))
    assert (row["faces_found"], len(row["faces"])) == (2, 1)
    (line, *_) = csv.DictReader(io.StringIO(expressnet(*options, "csv").stdout))
    assert (line["faces_found"], line["faces"]) == ("2", "1")


def test_one_image_is_read_from_standard_input(expressnet: Expressnet, astronaut_jpeg: bytes) -> None:
    result = expressnet("predict", "-", "--no-detect", input=astronaut_jpeg)
    (row,) = rows_of(result)
    assert result.exit_code == 0
    assert (row["path"], row["image"]) == ("-", {"width": 512, "height": 512})
    assert row["query"] == {"detect": False}
    assert "detection_confidence" not in row["faces"][0]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg"], "nowhere.jpg was not found"),
        ([".", "*.gif"], "*.gif was not found"),
        (["clip.mp4", "one.jpg", "--output", "rows.csv"], "images and videos do not fit into one CSV file"),
        (["gone.mp4"], "gone.mp4 was not found"),
        (["one.jpg", "--fps", "3"], "--fps is only for videos"),
        (["one.jpg", "--thumbnails"], "--thumbnails is only for videos"),
        ([".", "--include", "mood"], "--include: 'mood' is none of"),
        ([".", "--output", "rows.jsonl", "--format", "table"], "--output takes JSON lines or CSV"),
        (["-", "."], "- must be the only path"),
        (["-", "--output", "rows.jsonl"], "- must be the only path"),
        ([".", "--annotate", "."], "--annotate needs a folder of its own"),
        (
            [".", "--output", "notes.txt"],
            "notes.txt cannot be written to: its line 1 is not from",
        ),
    ],
)
def test_invalid_arguments_are_refused_in_one_sentence(
    expressnet: Expressnet, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(photos)
    Path("clip.mp4").touch()
    result = expressnet("predict", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"expressnet: {message}")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert Path("notes.txt").read_text() == "no photo either"


def test_a_video_becomes_a_timeline(
    expressnet: Expressnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: NDArray[np.uint8]
) -> None:
    monkeypatch.chdir(tmp_path)
    written = video(tmp_path / "clip.mp4", dict.fromkeys(range(25), astronaut))
    result = expressnet("predict", written, "--fps", "4", env={"COLUMNS": "100"})
    assert result.exit_code == 0
    rows = list(csv.DictReader(Path("clip.timeline.csv").read_text().splitlines()))
    assert [row["time_s"] for row in rows] == ["0.0", "0.28", "0.52", "0.76"]
    assert {(row["track"], row["emotion"]) for row in rows} == {("1", "happiness")}
    with Image.open("clip.timeline.png") as picture:
        assert picture.width == 1000
    assert re.search(r"1 +│ +0.0 to 0.8 s +│ +4 +│ +happiness 100%", result.stdout)
    assert (
        result.stderr
        == "expressnet: 4 frames, 1 face: clip.timeline.csv, clip.timeline.png and clip.report.json\n"
    )


def test_the_command_is_refused_in_group_mode(expressnet: Expressnet, photos: Path) -> None:
    result = expressnet("predict", photos, env={"EXPRESSNET_AGGREGATE_ONLY": "5"})
    assert result.exit_code == 2
    assert (
        result.stderr
        == "expressnet: EXPRESSNET_AGGREGATE_ONLY is set, but this command answers for single faces\n"
    )
    assert result.stdout == ""


def test_bad_settings_and_models_are_refused(expressnet: Expressnet, photos: Path) -> None:
    for name, value in (("EXPRESSNET_PORT", "-1"), ("EXPRESSNET_MODEL_REPOSITORY", "/nowhere")):
        result = expressnet("predict", photos, env={name: value})
        assert result.exit_code == 2
        assert value in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_each_unreadable_file_is_a_problem_of_its_own(
    expressnet: Expressnet, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.jpg")
    result = expressnet("predict", photos, env={"EXPRESSNET_BODY_LIMIT_BYTES": "10000"})
    found = {Path(row["path"]).name: row["problem"] for row in rows_of(result) if "problem" in row}
    assert {name: problem["code"] for name, problem in found.items()} == {
        "gone.jpg": "file_unreadable",
        "one.jpg": "body_too_large",
        "pipe.jpg": "invalid_image",
        "torn.jpg": "invalid_image",
        "two.png": "body_too_large",
    }
    assert found["gone.jpg"]["detail"] == "no such file or directory"
    assert "EXPRESSNET_BODY_LIMIT_BYTES" in found["one.jpg"]["detail"]


def test_a_second_run_answers_only_new_and_changed_files(expressnet: Expressnet, photos: Path) -> None:
    file = photos.parent / "made" / "rows.jsonl"
    first = expressnet("predict", photos, "--output", file)
    assert (first.exit_code, first.stdout) == (1, "")
    before = file.read_bytes()

    again = expressnet("predict", photos, "--output", file)
    assert file.read_bytes() == before
    assert again.exit_code == 1  # the image that failed in the first run still has no answer
    assert "0 images" in again.stderr
    assert "4 more from earlier runs, 1 of them without an answer" in again.stderr

    (photos / "new.jpg").write_bytes((photos / "one.jpg").read_bytes())
    os.utime(photos / "one.jpg", (0, 0))
    third = expressnet("predict", photos, "--output", file)
    assert "2 images, 2 faces" in third.stderr
    assert file.read_bytes().startswith(before)
    added = file.read_text()[len(before) :]
    assert len(added.splitlines()) == 2

    other = expressnet("predict", photos, "--output", file, "--max-faces", "1")
    assert other.exit_code == 2
    assert "other options" in other.stderr


def test_csv_cannot_be_resumed(expressnet: Expressnet, photos: Path) -> None:
    file = photos.parent / "rows.csv"
    file.touch()
    first = expressnet("predict", photos, "--output", file)
    assert (first.exit_code, first.stdout) == (1, "")
    assert file.read_text() == expressnet("predict", photos, "--format", "csv").stdout
    before = file.read_bytes()
    again = expressnet("predict", photos, "--output", file)
    assert again.exit_code == 2
    assert again.stderr == (
        f"expressnet: {file} cannot be written to: it is not empty, and CSV cannot resume; JSON lines can.\n"
    )
    assert file.read_bytes() == before


def test_csv_for_excel_begins_with_a_byte_order_mark(expressnet: Expressnet, photos: Path) -> None:
    plain = expressnet("predict", photos, "--format", "csv").stdout
    file = photos.parent / "rows.csv"
    expressnet("predict", photos, "--output", file, "--bom")
    assert file.read_bytes() == b"\xef\xbb\xbf" + plain.encode()
    for options in (["--format", "jsonl"], ["--output", photos.parent / "rows.jsonl"]):
        refused = expressnet("predict", photos, "--bom", *options)
        assert refused.exit_code == 2
        assert refused.stderr == "expressnet: --bom is only for CSV\n"


class FailingClassifier(FakeClassifier):
    """Fails for the photo of two faces, or for every photo if `error` is set."""

    failures = 0

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        if len(faces) == 2 or self.error:
            self.failures += 1
            raise EngineUnavailable("the model could not be run")
        return await super().classify(faces, deadline)


@pytest.fixture
def failing_classifier(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> FailingClassifier:
    classifier = FailingClassifier()
    object.__setattr__(engines, "classifier", classifier)
    monkeypatch.setattr(run_module, "RETRY_S", 0.01)
    monkeypatch.setattr(run_module, "PATIENCE_S", 0.1)
    # One image at a time, so that the two faces of one photo are a batch.
    monkeypatch.setattr(run_module, "IMAGES_PER_THREAD", 1)
    monkeypatch.setenv("EXPRESSNET_WORKER_THREADS", "1")
    return classifier


def test_an_image_that_fails_in_the_engine_does_not_stop_the_others(
    expressnet: Expressnet, photos: Path, failing_classifier: FailingClassifier
) -> None:
    rows = rows_of(expressnet("predict", photos))
    assert [row.get("problem", {}).get("code") for row in rows] == [
        *("engine_unavailable", None, None, "invalid_image")
    ]
    assert failing_classifier.failures == run_module.TRIES


def test_an_unavailable_engine_ends_the_run_and_no_row_is_written(
    expressnet: Expressnet, photos: Path, engines: Engines, failing_classifier: FailingClassifier
) -> None:
    failing_classifier.error = EngineUnavailable("down")
    detector = engines.detector
    assert isinstance(detector, FakeDetector)

    async def down() -> None:
        raise EngineUnavailable("the inference server is not connected")

    detector.ping = down  # type: ignore[method-assign]
    file = photos.parent / "rows.jsonl"
    result = expressnet("predict", photos / "one.jpg", "--output", file)
    assert result.exit_code == 2
    assert "the engine cannot answer: yunet: the inference server is not connected" in result.stderr
    assert file.read_bytes() == b""


def test_the_decode_budget_is_that_of_the_command_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert patient(Settings()).decode_budget_s == DECODE_BUDGET_S
    monkeypatch.setenv("EXPRESSNET_DECODE_BUDGET_S", "5")
    assert patient(Settings()).decode_budget_s == 5


async def test_paths_are_read_only_when_they_are_needed() -> None:
    """Hundreds of thousands of paths must not become hundreds of thousands of tasks."""
    from service.api.schemas import EmotionQuery
    from service.assembly import assemble
    from service.predict.run import WAITING_ROWS, Options, Predictor

    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield f"/nowhere/{taken}.jpg"

    settings = Settings()
    async with assemble(settings, fake_engines()) as assembly:
        predictor = Predictor(assembly, Options(EmotionQuery(), 1, 10**6, 10**6))
        seen = []
        async for row in predictor.rows(endless()):
            seen.append(row.source.path)
            if len(seen) == 500:
                predictor.stop.set()
    # The images in flight at the stop are answered, each once and in order.
    assert seen == [f"/nowhere/{number}.jpg" for number in range(1, len(seen) + 1)]
    assert len(seen) <= taken <= 500 + WAITING_ROWS + 1
