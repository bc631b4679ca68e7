"""The picture of a timeline: the smoothed probabilities of each face over time."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from service.core.arrays import Image
from service.tracking.record import Followed, TrackTotals
from service.tracking.tracks import LOST_S

MAX_DRAWN = 8

# Layout: each face has a panel of PANEL_PX, of which the last GAP_PX are empty.
WIDTH_PX, PLOT_PX, PANEL_PX, GAP_PX, LEFT_PX, TOP_PX = 1000, 740, 160, 16, 110, 40
THUMBNAIL_PX = 84
# The default colours of matplotlib.
COLOURS = np.frombuffer(
    bytes.fromhex("1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf"), np.uint8
).reshape(-1, 3)
TICKS_S = [digit * 10**power for power in range(-1, 7) for digit in (1, 2, 5)]


class Chart:
    """Collects the answers of a video, and draws them."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
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
    ) -> Pictures.Image:
        """The `MAX_DRAWN` tracks with most frames, with their thumbnails."""
        longest = sorted(tracks, key=lambda track: -track.frames)[:MAX_DRAWN]
        shown = sorted(track.number for track in longest)
        bottom = TOP_PX + PANEL_PX * max(1, len(shown))
        picture = Pictures.new("RGB", (WIDTH_PX, bottom + TOP_PX), "white")
        pen = ImageDraw.Draw(picture)
        write = partial(pen.text, fill="black", font=ImageFont.load_default(14))
        for index, number in enumerate(shown):
            top = TOP_PX + index * PANEL_PX
            panel = Pictures.fromarray(self._panel(number))
            picture.paste(panel, (LEFT_PX, top))
            pen.rectangle((LEFT_PX - 1, top - 1, LEFT_PX + panel.width, top + panel.height), outline="black")
            name_at = top + panel.height // 2
            if number in thumbnails:
                picture.paste(thumbnails[number], (LEFT_PX - 10 - THUMBNAIL_PX, top + 44))
                name_at = top + 32
            write((LEFT_PX - 10, name_at), f"face {number}", anchor="rm")
            write((LEFT_PX - 10, top), "1", anchor="rm")
            write((LEFT_PX - 10, top + panel.height), "0", anchor="rm")
        self._write_times(write, bottom)
        for index, label in enumerate(self._labels if shown else ()):
            x, y = LEFT_PX + PLOT_PX + 20, TOP_PX + 20 * index
            pen.rectangle((x, y, x + 12, y + 12), fill=tuple(COLOURS[index % len(COLOURS)].tolist()))
            write((x + 20, y + 6), label, anchor="lm")
        hidden = len(tracks) + tracks_omitted - len(shown)
        more = f"; {hidden} more not shown" if hidden else ""
        title = f"Smoothed probabilities; hatched: uncertain{more}" if shown else "No face was found"
        write((LEFT_PX + PLOT_PX // 2, TOP_PX // 2), title, anchor="mm")
        return picture

    def _write_times(self, write: partial[None], bottom: int) -> None:
        step_s = next((step for step in TICKS_S if self._end_s / step <= 10), self._end_s)
        for tick in range(int(self._end_s / step_s) + 1):
            write(
                (LEFT_PX + PLOT_PX * tick * step_s / self._end_s, bottom), f"{tick * step_s:g}", anchor="mt"
            )
        write((LEFT_PX + PLOT_PX // 2, bottom + 18), "seconds", anchor="mt")

    def _panel(self, number: int) -> Image:
        """The stacked probabilities of one face, uint8 [H,W,3]; white while the face was away."""
        rows = np.array(self._rows[number]).reshape(-1, 2 + len(self._labels))
        times, uncertain = rows[:, 0], rows[:, 1] > 0
        # An answer holds until the next one, except across a gap.
        spans = np.diff(times, append=np.inf)
        usual_s = np.median(spans[:-1]) if len(times) > 1 else LOST_S
        until = times + np.where(spans <= 2.5 * usual_s, spans, usual_s)

        at = np.linspace(0, self._end_s, PLOT_PX)
        held = np.searchsorted(times, at, side="right") - 1
        away = (held < 0) | (at > until[held])
        height = np.linspace(1, 0, PANEL_PX - GAP_PX)[:, None]
        below = np.cumsum(rows[:, 2:], axis=1)[held, :-1]
        label = np.sum([height > edge for edge in below.T], axis=0)
        panel: Image = COLOURS[label % len(COLOURS)]
        stripes = np.add.outer(np.arange(len(height)), np.arange(PLOT_PX)) % 12 < 3
        panel[(stripes & uncertain[held]) | away] = 255
        return panel


def thumbnail(pixels: Image, box: NDArray[np.float32]) -> Pictures.Image:
    """A square of THUMBNAIL_PX around the face. box: float32 [4] xyxy in px."""
    left, top, right, bottom = box.tolist()
    half = 0.6 * max(right - left, bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2
    place = round(x - half), round(y - half), round(x + half), round(y + half)
    return Pictures.fromarray(pixels).crop(place).resize((THUMBNAIL_PX, THUMBNAIL_PX))
