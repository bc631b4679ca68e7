"""Which files a run answers, in which order, and how a run recognizes a changed file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from service.predict.sources import files, images, is_video, missing, source
from tests.scenes import video


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "b.jpg",
        "a.PNG",
        "c/d.heic",
        "c/._d.heic",
        "c/e/f.webp",
        ".hidden/g.jpg",
        "notes.txt",
        "h.mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("places", "found"),
    [
        (["."], ["./a.PNG", "./b.jpg", "./c/d.heic", "./c/e/f.webp"]),
        (["c/"], ["c/d.heic", "c/e/f.webp"]),
        (["notes.txt", "b.jpg"], ["notes.txt", "b.jpg"]),
        (["*.jpg"], ["b.jpg"]),
        (["*"], ["a.PNG", "b.jpg", "c/d.heic", "c/e/f.webp"]),
        (["**/*.webp"], ["c/e/f.webp"]),
        (["c", "b.jpg", "c/e", "./b.jpg", "**"], ["c/d.heic", "c/e/f.webp", "b.jpg", "a.PNG"]),
        (["-"], ["-"]),
    ],
)
def test_places_become_images_in_a_fixed_order(tree: Path, places: list[str], found: list[str]) -> None:
    assert list(images(places)) == found


def test_an_excluded_folder_is_skipped(tree: Path) -> None:
    assert list(images(["."], excluded=Path("c/e"))) == ["./a.PNG", "./b.jpg", "./c/d.heic"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tree: Path) -> None:
    Path("x[1].jpg").touch()
    Path("x1.jpg").touch()
    assert list(images(["x[1].jpg"])) == ["x[1].jpg"]
    assert missing(["b.jpg", "c", "*.jpg", "-"]) is None
    assert missing(["b.jpg", "*.gif"]) == "*.gif"


def test_a_cycle_of_links_ends(tree: Path) -> None:
    Path("c/back").symlink_to(tree)
    assert list(images(["c"])) == ["c/d.heic", "c/e/f.webp"]


def test_a_folder_that_cannot_be_listed_is_returned_as_a_source(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(folder: str) -> object:
        if folder == "c/e":
            raise PermissionError
        return scandir(folder)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refusing)
    assert list(images(["c"])) == ["c/d.heic", "c/e"]


def test_a_changed_file_has_another_key(tree: Path) -> None:
    before = source("b.jpg")
    assert source("b.jpg").key == before.key
    assert source("./b.jpg").key != before.key
    os.utime("b.jpg", ns=(0, 1_000_000_000_123_456_789))
    touched = source("b.jpg")
    assert touched.modified == "2001-09-09T01:46:40.123456+00:00"
    assert touched.key != before.key
    Path("b.jpg").write_bytes(b"more")
    os.utime("b.jpg", ns=(0, 1_000_000_000_123_456_789))
    assert source("b.jpg").key not in (before.key, touched.key)


def test_any_name_is_shown_on_one_line(tree: Path) -> None:
    assert source("a\nb\x1b[31m.jpg").shown == r"a\nb\x1b[31m.jpg"
    assert source(os.fsdecode(b"\xff.jpg")).shown == r"\xff.jpg"
    assert source("müde 😀.jpg").shown == "müde 😀.jpg"


def test_videos_are_known_by_their_names_or_else_by_their_content(tree: Path) -> None:
    assert is_video("clip.MP4")
    assert not is_video("mp4.jpg")
    video(tree / "clip.mp4", {0: np.zeros((64, 64, 3), np.uint8)}).rename("clip")
    assert is_video("clip")
    assert not is_video("notes.txt")


def test_files_that_are_neither_image_nor_video_are_named(tree: Path) -> None:
    Path("code.ts").write_text("let x = 1")
    Path("tv.ts").write_bytes(b"\x47" + bytes(187))
    Path("h.timeline.png").touch()
    for place in (".", "*"):
        skipped: list[str] = []
        found = [Path(path).name for path in files([place], skipped=skipped.append)]
        assert sorted(found) == ["a.PNG", "b.jpg", "d.heic", "f.webp", "h.mp4", "tv.ts"]
        assert [Path(path).name for path in skipped] == ["code.ts", "h.timeline.png", "notes.txt"]
