"""Picture files are read, checked and grouped."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.training.made_up import noise, write_picture
from training.datasets.faces import DatasetError, FilePictures, PixelPictures
from training.datasets.faults import Faults
from training.datasets.files import Box, ImageEntry, load_entries


def checked(root: Path, *files: Path, box: Box | None = None) -> tuple[list[str], tuple[str, ...]]:
    """Returns (names of the accepted files, problems)."""
    faults = Faults(root, skip_bad=True)
    faces = load_entries([ImageEntry("all", file, 0, box) for file in files], root, faults).get("all")
    return [] if faces is None else faces.names.tolist(), faults.raise_or_report()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [48, 20, 100])
def test_files_are_read_like_pixels_in_memory(tmp_path: Path, size: int, channels: int) -> None:
    files = tuple(write_picture(tmp_path / f"{seed}.png", seed) for seed in range(5))
    rows = np.array([3, 0, 3])
    read = FilePictures(files).read(rows, size=size, channels=channels)
    in_memory = PixelPictures(np.stack([noise(seed) for seed in range(5)]))
    assert read.shape == (3, channels, size, size)
    assert np.array_equal(read, in_memory.read(rows, size=size, channels=channels))
    assert np.array_equal(
        read, FilePictures(files).choose(rows).read(np.arange(3), size=size, channels=channels)
    )


@pytest.mark.parametrize("pictures", [PixelPictures(np.empty((0, 48, 48), np.uint8)), FilePictures(())])
def test_reading_no_rows_gives_no_pictures(pictures: PixelPictures | FilePictures) -> None:
    assert pictures.read(np.arange(0), size=30, channels=3).shape == (0, 3, 30, 30)


def test_colours_keep_their_order(tmp_path: Path) -> None:
    Image.new("RGB", (10, 10), (255, 128, 0)).save(tmp_path / "orange.png")
    pixels = FilePictures((tmp_path / "orange.png",)).read(np.array([0]), size=4, channels=3)
    assert pixels[0, :, 2, 2].tolist() == [255, 128, 0]


def test_a_face_is_cut_out_of_the_upright_photo(tmp_path: Path) -> None:
    """The file stores the photo on its side, as cameras do. The box is in the upright photo of 40x80 px."""
    upright = np.zeros((80, 40), np.uint8)
    upright[50:70, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer rotates it by 90 degrees clockwise
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "side.png", exif=exif)
    box = (10, 50, 30, 70)
    face = FilePictures((tmp_path / "side.png",), np.array([box]))
    assert (face.read(np.array([0]), size=20, channels=1) == 255).all()
    assert checked(tmp_path, tmp_path / "side.png", box=box) == (["side.png"], ())
    _, problems = checked(tmp_path, tmp_path / "side.png", box=(45, 10, 60, 30))
    assert problems == ("skipped: face boxes outside of their image (1): side.png",)


def test_a_file_that_is_damaged_after_the_check_is_named(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.jpg", 0)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DatasetError, match=r"a\.jpg cannot be read as an image: .*[Tt]runcated"):
        FilePictures((path,)).read(np.array([0]), size=48, channels=1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_a_file_that_is_cut_short_is_found(tmp_path: Path, suffix: str) -> None:
    whole, cut = (write_picture(tmp_path / f"{name}{suffix}", 0) for name in ("whole", "cut"))
    cut.write_bytes(cut.read_bytes()[: len(cut.read_bytes()) // 2])
    names, problems = checked(tmp_path, whole, cut)
    assert names == [f"whole{suffix}"]
    assert problems[0].startswith(f"skipped: unreadable images (1): cut{suffix} (")


def test_bytes_after_the_end_of_a_jpeg_are_accepted(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.jpg", 0)
    path.write_bytes(path.read_bytes() + b"\0" * 7)
    assert checked(tmp_path, path) == (["a.jpg"], ())


def test_every_fault_is_counted_and_the_first_are_named(tmp_path: Path) -> None:
    readable = write_picture(tmp_path / "there.png", 0)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    others = [tmp_path / f"{number}.png" for number in range(7)]
    files = [readable, tmp_path / "folder.png", tmp_path / "text.png", *others]
    names, problems = checked(tmp_path, *files)
    assert names == ["there.png"]
    assert problems[0] == "skipped: files that cannot be opened (1): folder.png (Is a directory)"
    assert problems[1].startswith("skipped: unreadable images (1): text.png (cannot identify")
    assert problems[2] == "skipped: missing files (7): 0.png, 1.png, 2.png, 3.png, 4.png and 2 more"
    faults = Faults(tmp_path, skip_bad=False)
    load_entries([ImageEntry("all", file, 0) for file in files], tmp_path, faults)
    with pytest.raises(DatasetError, match=r"missing files \(7\): .*--skip-bad"):
        faults.raise_or_report()


def test_copies_share_a_group_and_rows_keep_their_order(tmp_path: Path) -> None:
    files = [
        write_picture(tmp_path / f"{name}.png", seed) for name, seed in zip("dacb", (4, 5, 4, 6), strict=True)
    ]
    listed = [ImageEntry(split, file, 1) for split, file in zip(("x", "y", "y", "x"), files, strict=True)]
    splits = load_entries(listed, tmp_path, Faults(tmp_path, skip_bad=False))
    assert {name: faces.names.tolist() for name, faces in splits.items()} == {
        "x": ["d.png", "b.png"],
        "y": ["a.png", "c.png"],
    }
    assert splits["x"].group[0] == splits["y"].group[1]
    assert len({*splits["x"].group, *splits["y"].group}) == 3


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of damage that it ignores
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".jpg", ".png", ".webp", ".bmp", ".tif"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    kept=st.floats(0, 1),
)
def test_a_damaged_file_gives_a_picture_or_a_fault(
    tmp_path: Path, suffix: str, edits: list[tuple[float, int]], kept: float
) -> None:
    path = write_picture(tmp_path / f"damaged{suffix}", 0)
    content = bytearray(path.read_bytes())
    for position, value in edits:
        content[int(position * len(content))] = value
    path.write_bytes(content[: round(kept * len(content))])
    names, problems = checked(tmp_path, path)
    assert len(names) + len(problems) == 1
    if names:
        # Only decoding shows some damage. Then `read` raises an error that names the file.
        with suppress(DatasetError):
            FilePictures((path,)).read(np.array([0]), size=48, channels=3)
