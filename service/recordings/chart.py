"""The picture of a timeline: the smoothed probabilities of each face over time."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from service.core.arrays import Image
from service.recordings.canvas import Canvas, Colour, Columns, PixelCanvas, VectorCanvas
from service.tracking.record import Followed, TrackTotals
from service.tracking.tracks import LOST_S

Form = Literal["png", "svg"]
CANVASES: dict[Form, Callable[[int, int], Canvas]] = {"png": PixelCanvas, "svg": VectorCanvas}
MAX_DRAWN = 8

# Layout: each face has a panel of PANEL_PX, of which the last GAP_PX are empty.
WIDTH_PX, PLOT_PX, PANEL_PX, GAP_PX, LEFT_PX, TOP_PX = 1000, 740, 160, 16, 110, 40
THUMBNAIL_PX = 84
# The default colours of matplotlib.
COLOURS: list[Colour] = [
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
]
TICKS_S = [digit * 10**power for power in range(-1, 7) for digit in (1, 2, 5)]


class Chart:
    """Collects the answers of a video, and draws them."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._colours = [COLOURS[index % len(COLOURS)] for index in range(len(labels))]
        self._end_s = 0.1
        # For each track a row per frame: time, 1 if uncertain, probabilities. Arrays save memory.
        self._rows: dict[int, array[float]] = {}

    def add(self, time_s: float, followed: Sequence[Followed]) -> None:
        self._end_s = max(self._end_s, time_s)
        for track in followed:
            row = [time_s, float(track.verdict == "uncertain"), *track.probabilities.tolist()]
            self._rows.setdefault(track.number, array("f")).extend(row)

    def draw(
        self,
        tracks: Sequence[TrackTotals],
        tracks_omitted: int,
        thumbnails: Mapping[int, Pictures.Image],
        form: Form,
    ) -> bytes:
        """A file that shows the `MAX_DRAWN` tracks with most frames, with their thumbnails."""
        longest = sorted(tracks, key=lambda track: -track.frames)[:MAX_DRAWN]
        shown = sorted(track.number for track in longest)
        bottom = TOP_PX + PANEL_PX * max(1, len(shown))
        height = PANEL_PX - GAP_PX
        canvas = CANVASES[form](WIDTH_PX, bottom + TOP_PX)
        for index, number in enumerate(shown):
            top = TOP_PX + index * PANEL_PX
            canvas.stack(LEFT_PX, top, height, self._columns(number))
            canvas.rectangle(LEFT_PX - 1, top - 1, PLOT_PX + 1, height + 1)
            name_at = top + height // 2
            if number in thumbnails:
                canvas.picture(LEFT_PX - 10 - THUMBNAIL_PX, top + 44, thumbnails[number])
                name_at = top + 32
            canvas.text(LEFT_PX - 10, name_at, f"face {number}", "rm")
            canvas.text(LEFT_PX - 10, top, "1", "rm")
            canvas.text(LEFT_PX - 10, top + height, "0", "rm")
        self._write_times(canvas, bottom)
        for index, label in enumerate(self._labels if shown else ()):
            x, y = LEFT_PX + PLOT_PX + 20, TOP_PX + 20 * index
            canvas.rectangle(x, y, 12, 12, self._colours[index])
            canvas.text(x + 20, y + 6, label, "lm")
        hidden = len(tracks) + tracks_omitted - len(shown)
        more = f"; {hidden} more not shown" if hidden else ""
        title = f"Smoothed probabilities; hatched: uncertain{more}" if shown else "No face was found"
        canvas.text(LEFT_PX + PLOT_PX // 2, TOP_PX // 2, title, "mm")
        return canvas.encoded()

    def _write_times(self, canvas: Canvas, bottom: int) -> None:
        step_s = next((step for step in TICKS_S if self._end_s / step <= 10), self._end_s)
        for tick in range(int(self._end_s / step_s) + 1):
            x = LEFT_PX + PLOT_PX * tick * step_s / self._end_s
            canvas.text(x, bottom, f"{tick * step_s:g}", "mt")
        canvas.text(LEFT_PX + PLOT_PX // 2, bottom + 18, "seconds", "mt")

    def _columns(self, number: int) -> Columns:
        """One face at each px of the time axis. A column is empty while the face was away."""
        rows = np.array(self._rows[number]).reshape(-1, 2 + len(self._labels))
        times, uncertain = rows[:, 0], rows[:, 1] > 0
        # An answer holds until the next one, except across a gap.
        spans = np.diff(times, append=np.inf)
        usual_s = np.median(spans[:-1]) if len(times) > 1 else LOST_S
        until = times + np.where(spans <= 2.5 * usual_s, spans, usual_s)

        at = np.linspace(0, self._end_s, PLOT_PX)
        held = np.searchsorted(times, at, side="right") - 1
        edges = np.cumsum(rows[:, 2:], axis=1)[held]
        edges[(held < 0) | (at > until[held])] = np.nan
        return Columns(edges, uncertain[held], self._colours)


def thumbnail(pixels: Image, box: NDArray[np.float32]) -> Pictures.Image:
    """A square of THUMBNAIL_PX around the face. box: float32 [4] xyxy in px."""
    left, top, right, bottom = box.tolist()
    half = 0.6 * max(right - left, bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2
    place = round(x - half), round(y - half), round(x + half), round(y + half)
    return Pictures.fromarray(pixels).crop(place).resize((THUMBNAIL_PX, THUMBNAIL_PX))
