from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data as photographs

from service.core.manifest import Crop
from service.vision.align import align_faces, whole_image

CROP = Crop(left_eye=(0.3, 0.38), right_eye=(0.7, 0.38), mouth=(0.5, 0.78))
SIZE = 64
# Eyes, nose and corners of the mouth of a face that matches CROP, in fractions of a crop.
FACE = np.array([(0.3, 0.38), (0.7, 0.38), (0.5, 0.55), (0.35, 0.78), (0.65, 0.78)])
EXPECTED = np.array([(0.3, 0.38), (0.7, 0.38), (0.5, 0.78)]) * SIZE


def placed(side: float, degrees: float, centre: tuple[float, float]) -> np.ndarray:
    """Landmarks of a face whose crop is `side` px wide, turned around the crop's centre: float32 [1,5,2]."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points: NDArray[np.float32] = ((FACE - 0.5) * side @ turn.T + centre).astype(np.float32)[None]
    return points


def dotted(landmarks: np.ndarray, shape: tuple[int, int], radius: float) -> np.ndarray:
    """A black image with a red, a green and a blue disc on left eye, right eye and middle of the mouth."""
    left, right, _, *corners = landmarks[0].astype(float)
    image = np.zeros((*shape, 3))
    fine = (np.arange(4) + 0.5) / 4
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(float)
    for channel, (x, y) in enumerate([left, right, np.mean(corners, axis=0)]):
        near = np.s_[int(y - radius) - 1 : int(y + radius) + 2, int(x - radius) - 1 : int(x + radius) + 2]
        for dy in fine:
            for dx in fine:
                image[near][..., channel] += np.hypot(xs[near] + dx - x, ys[near] + dy - y) < radius
    return (image * (255 / 16)).astype(np.uint8)


def centroids(face: np.ndarray) -> np.ndarray:
    """Centre of mass of each channel in continuous coordinates: [3,2] (x, y)."""
    weights = face.astype(float)
    positions = np.arange(face.shape[1]) + 0.5
    total = weights.sum((1, 2))
    return np.stack([weights.sum(1) @ positions / total, weights.sum(2) @ positions / total], axis=1)


@pytest.mark.parametrize(
    ("side", "degrees", "centre"),
    [
        (64, 0, (100, 100)),
        (64, 0, (100.25, 99.5)),
        (64, 30, (100, 100)),
        (90, -75, (120.7, 110.2)),
        (150, 180, (140, 130)),
        (200, 12, (150, 150)),
        (400, -20, (300.3, 310.8)),
        (900, 45, (700, 700)),
        (24, 0, (40.5, 44)),
        (20, 25, (40.2, 40.9)),
    ],
)
def test_eyes_and_mouth_are_at_the_points_of_the_crop(
    side: float, degrees: float, centre: tuple[float, float]
) -> None:
    landmarks = placed(side, degrees, centre)
    extent = int(max(centre) + side)
    image = dotted(landmarks, (extent, extent), radius=side * 0.06)
    face = align_faces(image, landmarks, CROP, SIZE)
    assert face.shape == (1, 3, SIZE, SIZE)
    assert face.dtype == np.uint8
    # The classifier needs half a pixel. A mistake about pixel centres shifts points by a quarter or more.
    assert np.abs(centroids(face[0]) - EXPECTED).max() < 0.15


def test_a_face_that_fits_is_returned_pixel_for_pixel() -> None:
    image = photographs.astronaut()
    landmarks = placed(SIZE, 0, (200 + SIZE / 2, 80 + SIZE / 2))
    face = align_faces(image, landmarks, CROP, SIZE)[0].transpose(1, 2, 0)
    assert np.abs(face.astype(int) - image[80 : 80 + SIZE, 200 : 200 + SIZE]).max() <= 1


def test_least_squares_shares_the_error_among_the_points() -> None:
    landmarks = placed(64, 0, (100, 100))
    landmarks[0, 3:, 1] += 6  # a longer face than the crop's
    face = align_faces(dotted(landmarks, (200, 200), 4), landmarks, CROP, SIZE)
    errors = centroids(face[0]) - EXPECTED
    assert errors.mean(axis=0) == pytest.approx([0, 0], abs=0.15)
    assert 0 < errors[2, 1] < 6


def test_a_face_is_never_mirrored() -> None:
    landmarks = placed(64, 0, (100, 100))
    mirrored = landmarks[:, [1, 0, 2, 4, 3]]
    image = dotted(landmarks, (200, 200), 4)
    faces = align_faces(image, np.concatenate([landmarks, mirrored]), CROP, SIZE)
    assert faces.shape == (2, 3, SIZE, SIZE)
    left, right, mouth = centroids(faces[0])
    across, down = right - left, mouth - left
    assert across[0] * down[1] - across[1] * down[0] > 0
    left, right, mouth = centroids(faces[1])
    across, down = right - left, mouth - left
    assert across[0] * down[1] - across[1] * down[0] > 0


def test_order_and_count_of_faces_are_kept() -> None:
    landmarks = np.concatenate([placed(64, 0, (60, 60)), placed(64, 0, (160, 60))])
    image = np.zeros((120, 220, 3), np.uint8)
    image[:, 110:] = 200
    faces = align_faces(image, landmarks, CROP, SIZE)
    assert faces[0].mean() < 10
    assert faces[1].mean() > 190
    assert align_faces(image, landmarks[:0], CROP, SIZE).shape == (0, 3, SIZE, SIZE)


@pytest.mark.parametrize("scale", [1.5, 1.97, 2.5, 3.1, 3.96, 5.5, 7.3, 20.4])
@pytest.mark.parametrize("period", [1, 2])
def test_shrinking_averages_fine_patterns(scale: float, period: int) -> None:
    side = int(SIZE * scale) + 40
    board = (np.indices((side, side)) // period).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    face = align_faces(image, placed(SIZE * scale, 7, (side / 2, side / 2)), CROP, SIZE)
    # Sampling without averages would keep the pattern's standard deviation of 127.
    # A pattern with fewer than 1.9 squares per pixel of the crop stays visible.
    visible = scale / period < 1.9
    assert face.std() < (90 if visible else 24)
    assert abs(face.mean() - 127.5) < 4


@pytest.mark.parametrize("scale", [1.1, 1.2, 1.35, 1.5])
def test_a_face_a_little_larger_than_its_crop_looks_as_it_does_in_a_larger_photo(scale: float) -> None:
    photo, landmarks = Image.fromarray(photographs.astronaut()), placed(136, 0, (224, 128))
    expected = align_faces(np.asarray(photo), landmarks, CROP, SIZE // 2).astype(int)
    side = round(512 * scale * (SIZE // 2) / 136)
    shrunk = np.asarray(photo.resize((side, side), Image.Resampling.BOX))
    face = align_faces(shrunk, landmarks * np.float32(side / 512), CROP, SIZE // 2).astype(int)
    assert np.abs(face - expected).mean() < 4
    # Averages of more samples would blur the face.
    assert 0.88 < np.diff(face).std() / np.diff(expected).std() < 1.1


def test_enlarging_a_tiny_face_is_smooth() -> None:
    ramp = np.repeat(np.tile(np.linspace(40, 200, 40), (40, 1))[..., None], 3, axis=2).astype(np.uint8)
    face = align_faces(ramp, placed(16, 0, (20, 20)), CROP, SIZE)[0, 0].astype(int)
    steps = np.diff(face[SIZE // 2])
    assert steps.min() >= 0
    assert steps.max() <= 2


def test_pixels_of_the_edge_are_repeated_outside_of_the_image() -> None:
    image = np.full((100, 100, 3), 90, np.uint8)
    image[:, :1] = (200, 60, 70)
    faces = align_faces(
        image,
        np.concatenate([placed(80, 20, (0, 50)), placed(500, 0, (100, 100)), placed(60, 0, (-400, 50))]),
        CROP,
        SIZE,
    )
    # Bicubic overshoots a little where red meets grey.
    assert faces.min() >= 40
    assert np.abs(faces[0, :, 32, 2].astype(int) - (200, 60, 70)).max() <= 2
    assert np.abs(faces[2].astype(int) - np.array((200, 60, 70))[:, None, None]).max() <= 2


@pytest.mark.parametrize(
    "landmarks",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 33.3),
        np.full((5, 2), np.nan),
        np.full((5, 2), np.inf),
        np.array([(10, 10), (np.nan, 10), (15, 15), (10, 20), (20, 20)]),
        FACE * 1e-9,
        FACE * 1e30,
        np.array([(1e38, 0), (-1e38, 0), (0, 0), (0, 1e38), (0, -1e38)]),
    ],
    ids=["zero", "equal", "nan", "inf", "one_nan", "tiny", "far", "overflow"],
)
def test_landmarks_that_define_no_crop_give_the_whole_image(landmarks: np.ndarray) -> None:
    image = photographs.astronaut()
    faces = align_faces(image, landmarks.astype(np.float32)[None], CROP, SIZE)
    assert np.array_equal(faces, whole_image(image, SIZE))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (48, 48)])
def test_strange_landmarks_never_raise(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 120, np.uint8)
    random = np.random.default_rng(0)
    for spread in (0.01, 1, 100, 1e4, 9e5):
        landmarks = random.normal(0, spread, (20, 5, 2)).astype(np.float32)
        # A flat image stays flat however it is framed.
        assert (align_faces(image, landmarks, CROP, SIZE) == 120).all()


def test_a_huge_face_is_cheap() -> None:
    image = np.zeros((6000, 6000, 3), np.uint8)
    landmarks = placed(50 * SIZE, 10, (3000, 3000))
    started = time.thread_time()
    align_faces(image, landmarks, CROP, SIZE)
    assert time.thread_time() - started < 1
    small = np.repeat(placed(80, 10, (3000, 3000)), 20, axis=0)
    started = time.thread_time()
    align_faces(image, small, CROP, SIZE)
    # A small face must not cost a pass over the whole image.
    assert time.thread_time() - started < 0.5


def test_whole_image_of_the_models_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    face = whole_image(image, 48)
    assert face.shape == (1, 3, 48, 48)
    assert np.array_equal(face[0].transpose(1, 2, 0), image)


def test_whole_image_keeps_the_centre_square() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 250
    assert (whole_image(image, 40) == 250).all()
    assert (whole_image(np.ascontiguousarray(image.swapaxes(0, 1)), 40) == 250).all()


def test_whole_image_averages_when_it_shrinks_and_is_smooth_when_it_grows() -> None:
    board = np.repeat((np.indices((640, 640)).sum(axis=0) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)
    assert whole_image(board, 64).std() < 3
    dot = Image.new("RGB", (48, 48))
    ImageDraw.Draw(dot).rectangle((20, 20, 27, 27), fill="white")
    assert centroids(whole_image(np.asarray(dot), 96)[0]) == pytest.approx(np.full((3, 2), 48), abs=0.05)
