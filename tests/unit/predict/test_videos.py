"""Timelines of videos: their rows, their pictures, and what an interrupted run resumes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from typer.testing import Result

from service.core.manifest import EMOTIONS
from service.predict.videos import names_of
from service.recordings.chart import CANVASES, COLOURS, GAP_PX, LEFT_PX, PANEL_PX, PLOT_PX, TOP_PX, Chart
from service.settings import Settings
from service.tracking.record import Record
from tests.conftest import serving
from tests.fake_engine import fake_engines
from tests.recordings import RECORDINGS, done
from tests.scenes import video
from tests.seen import FaceSeen, seen
from tests.unit.predict.conftest import Expressnet

HAPPINESS, WHITE = COLOURS[EMOTIONS.index("happiness")], (255, 255, 255)
SVG = "{http://www.w3.org/2000/svg}"


def portrait() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = skimage.data.astronaut()
    return pixels


EMPTY = np.zeros((512, 512, 3), np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clip(name: str, *, away: Sequence[int] = (), frames: int = 25) -> str:
    """A video of one second. Nobody is in the frames `away`."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    video(Path(name), {number: EMPTY if number in away else portrait() for number in range(frames)})
    return name


def csv_rows(file: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(file).read_text().splitlines()))


def json_rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def said(result: Result) -> list[str]:
    return [line.removeprefix("expressnet: ") for line in result.stderr.splitlines()]


def test_a_video_becomes_rows_and_a_picture(expressnet: Expressnet) -> None:
    result = expressnet("predict", clip("clip.mp4", away=range(10, 15)))
    assert (result.exit_code, said(result)) == (
        0,
        ["5 frames, 1 face: clip.timeline.csv, clip.timeline.png and clip.report.json"],
    )
    rows = csv_rows("clip.timeline.csv")
    assert [row["time_s"] for row in rows] == ["0.0", "0.2", "0.4", "0.6", "0.8"]
    assert [row["track"] for row in rows] == ["1", "1", "", "1", "1"]  # a time without a face has a row too
    assert {row["path"] for row in rows} == {"clip.mp4"}
    for row in rows[:2]:
        probabilities = [float(row[label]) for label in EMOTIONS]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert float(row["confidence"]) == max(probabilities)
        assert row["emotion"] == row["frame_emotion"] == "happiness"
    assert 178 < float(rows[0]["x"]) < 184
    with Image.open("clip.timeline.png") as picture:
        assert picture.width == 1000


def test_the_report_sums_up_the_video(expressnet: Expressnet) -> None:
    expressnet("predict", clip("clip.mp4", away=range(10, 15)))
    report = json.loads(Path("clip.report.json").read_text())
    assert (report["path"], report["duration_s"]) == ("clip.mp4", 1.0)
    assert [(track["track"], track["frames"]) for track in report["tracks"]] == [(1, 4)]
    assert report["group"]["absent"] == 0.2
    assert report["group"]["seen_s"] == 0.8
    assert report["group"]["time_share"]["happiness"] == 1.0
    (minute,) = report["minutes"]
    assert minute == {"start_s": 0.0, "end_s": 1.0} | report["group"]


def test_a_server_has_the_same_results(expressnet: Expressnet, tmp_path: Path) -> None:
    data = Path(clip("clip.mp4", away=range(10, 15))).read_bytes()
    expressnet("predict", "clip.mp4", "--include", "quality")
    with serving(Settings(port=0), fake_engines()) as gateway:
        place = f"{RECORDINGS}/{done(gateway, data, include='quality')}"
        timeline = gateway.client.get(f"{place}/timeline", params={"format": "csv"}).text.splitlines()
        report = gateway.client.get(f"{place}/report").json()
        picture = gateway.client.get(f"{place}/plot").content
    own = {"path": "clip.mp4", "problem": "", "detail": ""}
    assert [row | own for row in csv.DictReader(timeline)] == csv_rows("clip.timeline.csv")
    assert report | {"path": "clip.mp4"} == json.loads(Path("clip.report.json").read_text())
    assert picture == Path("clip.timeline.png").read_bytes()


def test_the_picture_is_white_while_nobody_is_in_the_video(expressnet: Expressnet) -> None:
    expressnet("predict", clip("clip.mp4", away=range(10, 40), frames=50))
    with Image.open("clip.timeline.png") as picture:
        middle = TOP_PX + (PANEL_PX - GAP_PX) // 2
        shown = [picture.getpixel((LEFT_PX + round(PLOT_PX * s / 1.8), middle)) for s in (0.1, 1.0, 1.7)]
    assert shown == [HAPPINESS, WHITE, HAPPINESS]


@pytest.mark.parametrize(("option", "shown"), [((), False), (("--thumbnails",), True)])
def test_faces_are_in_the_picture_on_request_only(
    expressnet: Expressnet, option: tuple[str, ...], shown: bool
) -> None:
    expressnet("predict", clip("clip.mp4"), *option)
    with Image.open("clip.timeline.png") as picture:
        left = np.asarray(picture.convert("RGB"))[TOP_PX + 50 : TOP_PX + 120, 20 : LEFT_PX - 20].astype(int)
    coloured = np.ptp(left, axis=2).max() > 40  # the text beside a panel is black
    assert coloured == shown


def test_a_chart_of_any_length_is_drawn() -> None:
    for end_s in (0.0, 86_400.0, 1e9):
        chart, record = Chart(EMOTIONS), Record(0.5, 0.5)
        for time_s in (0.0, end_s):
            chart.add(time_s, record.update(seen(FaceSeen()), time_s))
        for form in CANVASES:
            assert chart.draw(record.totals(), record.omitted, {}, form)


def test_the_vector_picture_shows_the_same() -> None:
    """Two faces, one after the other; the second one is uncertain."""
    chart, record = Chart(EMOTIONS), Record(0.5, 0.5)
    for step in range(10):
        second = FaceSeen(confidence=0.3, verdict="uncertain", box=(300, 200, 50, 50))
        chart.add(step, record.update(seen(FaceSeen() if step < 5 else second), step))
    pixels, vector = (chart.draw(record.totals(), record.omitted, {}, form) for form in ("png", "svg"))
    root = ElementTree.fromstring(vector)
    with Image.open(BytesIO(pixels)) as picture:
        assert (root.get("width"), root.get("height")) == tuple(map(str, picture.size))
    assert {"face 1", "face 2", "seconds", *EMOTIONS} < {text.text for text in root.iter(f"{SVG}text")}
    areas = [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("fill") != "url(#stripes)"]
    stripes = [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("fill") == "url(#stripes)"]
    assert len(areas) == 2 * len(EMOTIONS)
    assert [bool(path) for path in stripes] == [False, True]
    # The second face begins where the first ends.
    assert areas[0].startswith(f"M{LEFT_PX} ")
    assert areas[-1].startswith(stripes[1].split("V")[0].split(" ")[0])


def test_json_lines_hold_each_frame_and_the_whole(expressnet: Expressnet) -> None:
    result = expressnet(
        "predict", clip("clip.mp4", away=range(5)), "--format", "jsonl", "--include", "quality"
    )
    assert result.exit_code == 0
    *frames, last = json_rows("clip.timeline.jsonl")
    assert [row["time_s"] for row in frames] == [0, 0.2, 0.4, 0.6, 0.8]
    assert frames[0]["faces"] == []
    assert all({"track", "smoothed", "quality"} <= set(row["faces"][0]) for row in frames[1:])
    assert {row["path"] for row in (*frames, last)} == {"clip.mp4"}
    assert last["query"] == {"include": ["quality"]}
    assert (last["frames"], last["tracks"][0]["frames"]) == (5, 4)


def test_csv_has_the_included_parts(expressnet: Expressnet) -> None:
    expressnet("predict", clip("clip.mp4"), "--include", "quality,landmarks", "--no-detect")
    row = csv_rows("clip.timeline.csv")[0]
    assert (row["width"], row["landmarks.nose.x"]) == ("512.0", "")
    assert float(row["quality.size_px"]) == 512


def test_a_copy_shows_the_answers(expressnet: Expressnet) -> None:
    expressnet("predict", clip("a/clip.mov"), "--annotate", "drawn")
    with av.open("drawn/a/clip.mov.mp4") as copy:
        pictures = [
            (round(frame.time, 3), frame.to_ndarray(format="rgb24")) for frame in copy.decode(video=0)
        ]
    assert [time_s for time_s, _ in pictures] == [0, 0.2, 0.4, 0.6, 0.8]
    off = np.abs(pictures[0][1].astype(int) - portrait()).mean(axis=2)
    assert off[61, 181:268].mean() > 40  # the upper line of the box
    assert off[250:, :].mean() < 15
    assert sorted(os.listdir("drawn/a")) == ["clip.mov.mp4"]


def test_many_videos_in_one_run_keep_their_names_apart(expressnet: Expressnet) -> None:
    for name in ("a/clip.mp4", "b/clip.mpg", "other.mkv"):
        clip(name)
    result = expressnet("predict", "a", "b/*.mpg", "other.mkv")
    assert result.exit_code == 0
    assert sorted(Path().glob("*.csv")) == [
        *(Path("a-clip.mp4.timeline.csv"), Path("b-clip.mpg.timeline.csv"), Path("other.timeline.csv"))
    ]
    assert csv_rows("b-clip.mpg.timeline.csv")[0]["path"] == "b/clip.mpg"
    assert (
        "other.mkv: 5 frames, 1 face: other.timeline.csv, other.timeline.png and other.report.json"
        in said(result)
    )


def test_names_of_outputs_differ() -> None:
    names = names_of(["a/x.mp4", "b/x.mp4", "a-x.mp4.mp4", "y.mov"])
    assert len(set(names)) == 4
    assert names[-1] == "y"


def test_one_file_holds_images_and_videos(expressnet: Expressnet, photos: Path) -> None:
    clip("photos/clip.mp4")
    Path("photos/broken.mp4").write_bytes(b"no video")
    Path("photos/code.ts").write_text("let x = 1")
    command = ("predict", photos, "--output", "rows.jsonl")
    result = expressnet(*command)
    assert result.exit_code == 1
    rows = json_rows("rows.jsonl")
    assert [row["problem"]["code"] for row in rows if "problem" in row] == ["invalid_image", "invalid_video"]
    assert sum("time_s" in row for row in rows) == 5
    assert said(result)[-1] == (
        f"skipped {photos}/code.ts, {photos}/notes.txt, which are neither images nor videos"
    )
    before = Path("rows.jsonl").read_bytes()
    again = expressnet(*command)
    assert (again.exit_code, Path("rows.jsonl").read_bytes()) == (1, before)
    assert "2 videos from earlier runs" in said(again)


@pytest.mark.parametrize("end", ["after a row", "in a row"])
def test_an_interrupted_video_is_resumed(expressnet: Expressnet, end: str) -> None:
    command = ("predict", clip("clip.mp4", away=range(5, 15)), "--format", "jsonl")
    expressnet(*command)
    file = Path("clip.timeline.jsonl")
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + ("" if end == "after a row" else lines[2][:40]))
    result = expressnet(*command)
    assert (result.exit_code, said(result)) == (
        0,
        ["5 frames, 1 face: clip.timeline.jsonl, clip.timeline.png and clip.report.json"],
    )
    resumed, expected = json_rows(str(file)), [json.loads(line) for line in lines]
    assert [row.get("time_s") for row in resumed] == [row.get("time_s") for row in expected]
    assert resumed[-1]["tracks"][0]["frames"] == expected[-1]["tracks"][0]["frames"]
    assert resumed[4]["faces"][0]["smoothed"]["confidence"] == pytest.approx(
        expected[4]["faces"][0]["smoothed"]["confidence"], abs=1e-5
    )


def test_a_resumed_copy_has_every_frame(expressnet: Expressnet) -> None:
    command = ("predict", clip("clip.mp4"), "--format", "jsonl", "--annotate", "drawn")
    expressnet(*command)
    file = Path("clip.timeline.jsonl")
    whole = file.read_bytes()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    Path("drawn/clip.mp4").unlink()
    expressnet(*command)
    assert file.read_bytes() == whole
    with av.open("drawn/clip.mp4") as copy:
        assert sum(1 for _ in copy.decode(video=0)) == 5


def test_rows_that_exist_are_kept(expressnet: Expressnet) -> None:
    clip("clip.mp4")
    expressnet("predict", "clip.mp4")
    before = Path("clip.timeline.csv").read_bytes()
    again = expressnet("predict", "clip.mp4")
    assert (again.exit_code, Path("clip.timeline.csv").read_bytes()) == (2, before)
    assert said(again) == [
        "clip.timeline.csv is not empty; name another file, or delete it; "
        "CSV cannot resume, --format jsonl can"
    ]
    Path("photo.png").write_bytes(b"a photo")
    refused = expressnet("predict", "clip.mp4", "--output", "photo.csv")
    assert refused.exit_code == 2
    assert said(refused)[0].startswith("photo.png is not empty")


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    expressnet: Expressnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the work began")

    clip("clip.mp4")
    Path("file").touch()
    monkeypatch.setattr("service.predict.videos.answer_video", never)
    result = expressnet("predict", "clip.mp4", "--output", "file/rows.csv")
    assert result.exit_code == 2
    assert said(result)[0].startswith("file/rows.csv cannot be written to: ")


def test_a_pipe_is_no_video(expressnet: Expressnet) -> None:
    os.mkfifo("clip.mp4")
    result = expressnet("predict", "clip.mp4")
    assert (result.exit_code, said(result)) == (
        1,
        ["clip.mp4 cannot be read as a video: this is not a regular file"],
    )
