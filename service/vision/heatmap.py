"""Which parts of a face its answer depends on (occlusion sensitivity, Zeiler and Fergus, 2014).

Patches of the face are covered one after another. The heatmap shows how much the answer loses at each patch.
This works with any classifier.
"""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.arrays import Drawing, Faces
from service.vision.align import Similarity

# Patches along each side, and their share of the side. At 48 px patches are 16 px wide, 4 or 5 px apart.
PLACES = 8
PATCH_SHARE = 1 / 3
# Faces to classify for one heatmap.
COVERED_FACES = PLACES**2
SIDE_PX = 112
# In nats of log-odds. A heatmap needs a fall of this size for the strongest colours.
MIN_SCALE = 0.5
MAX_OPACITY = 0.8
# 16 steps of Matplotlib's inferno (CC0), which is perceptually uniform.
_INFERNO = (
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d04545 e35933 f1711f f98c0a fcaa0f "
    "f9c932 f2e865 fcffa4"
)


def cover(face: NDArray[np.uint8]) -> Faces:
    """Copies of a face [3,S,S], each with one patch in its mean colour: uint8 [64,3,S,S], row by row."""
    spans = _spans(face.shape[-1])
    faces = np.repeat(face[None], COVERED_FACES, axis=0)
    mean = face.mean(axis=(1, 2)).round().astype(np.uint8)[:, None, None]
    for copy, (rows, columns) in zip(faces, itertools.product(spans, spans), strict=True):
        copy[:, rows, columns] = mean
    return faces


def draw(probability: float, covered: NDArray[np.float32], placement: Similarity, side: int) -> Drawing:
    """probability: of the answer. covered: float32 [64], this probability with each patch covered.

    placement: of the crop, which has `side` px. Colours show the fall of the log-odds; a rise counts as 0.
    Log-odds still differ between patches when a very sure answer's probability hardly changes.
    """
    falls = (_log_odds(np.array(probability)) - _log_odds(covered)).clip(0)
    largest = max(0.0, float(probability - covered.min()))
    strength = _between(falls.reshape(PLACES, PLACES) / max(float(falls.max()), MIN_SCALE), side)
    levels = Image.fromarray((255 * strength).round().astype(np.uint8))
    step, origin = placement
    corners = origin + step * np.array([0, side, 1j * side, side + 1j * side])
    left, top, length = corners.real.min(), corners.imag.min(), np.ptp(corners.real)
    # From the heatmap's pixels to the crop's: the crop is levelled, the photo is not.
    a, b = length / SIDE_PX / step, (complex(left, top) - origin) / step
    turned = levels.transform(
        (SIDE_PX, SIDE_PX),
        Image.Transform.AFFINE,
        (a.real, -a.imag, b.real, a.imag, a.real, b.imag),
        Image.Resampling.BILINEAR,
    )
    box = np.array([left, top, left + length, top + length], np.float32)
    return Drawing(_png(turned), box, largest)


def _log_odds(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    kept = probability.astype(np.float64).clip(1e-6, 1 - 1e-6)
    odds: NDArray[np.float64] = np.log(kept / (1 - kept))
    return odds


def _between(grid: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Bilinear between the centres of the patches, constant outside them: [8,8] -> [S,S]."""
    middles = [(span.start + span.stop) / 2 for span in _spans(side)]
    at = np.arange(side) + 0.5
    rows = np.array([np.interp(at, middles, row) for row in grid])
    return np.array([np.interp(at, middles, column) for column in rows.T]).T


def _spans(side: int) -> list[slice]:
    """Start and end of each patch along a side."""
    patch = round(PATCH_SHARE * side)
    starts = np.linspace(0, side - patch, PLACES).round().astype(int).tolist()
    return [slice(start, start + patch) for start in starts]


def _png(levels: Image.Image) -> str:
    """Levels 0..255 as a base64 PNG. Higher levels are less transparent."""
    levels.putpalette(_palette())
    file = io.BytesIO()
    opacity = (MAX_OPACITY * np.arange(256)).round().astype(np.uint8)
    levels.save(file, "PNG", transparency=opacity.tobytes(), optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _palette() -> bytes:
    anchors = np.array([list(bytes.fromhex(colour)) for colour in _INFERNO.split()])
    at = np.linspace(0, 255, len(anchors))
    colours = [np.interp(np.arange(256), at, anchors[:, channel]) for channel in range(3)]
    return np.stack(colours, axis=1).round().astype(np.uint8).tobytes()
