"""What a chart is drawn on: pixels, or shapes for a browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

TEXT_PX = 14
# White stripes over what is uncertain.
STRIPE_PX, STRIPE_EVERY_PX = 3, 12

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Columns:
    """W columns of C shares.

    edges: float32 [W,C], cumulative sums of the shares; NaN leaves a column empty. striped: [W]. colours: C.
    """

    edges: NDArray[np.float32]
    striped: NDArray[np.bool_]
    colours: Sequence[Colour]


class Canvas(Protocol):
    """Positions and lengths are px from the top left corner.

    anchor: the point of a text that is at its position, as in Pillow: `rm` is right and middle.
    """

    def text(self, x: float, y: float, text: str, anchor: str) -> None: ...

    def rectangle(self, x: float, y: float, width: float, height: float, fill: Colour | None = None) -> None:
        """Without a fill it is a black outline."""
        ...

    def picture(self, x: float, y: float, picture: Pictures.Image) -> None: ...

    def stack(self, x: int, y: int, height: int, columns: Columns) -> None:
        """Each column is 1 px wide and has its shares from the bottom up."""
        ...

    def encoded(self) -> bytes:
        """The content of a file."""
        ...


class PixelCanvas:
    """A PNG."""

    def __init__(self, width: int, height: int) -> None:
        self._picture = Pictures.new("RGB", (width, height), "white")
        self._pen = ImageDraw.Draw(self._picture)
        self._font = ImageFont.load_default(TEXT_PX)

    def text(self, x: float, y: float, text: str, anchor: str) -> None:
        self._pen.text((x, y), text, fill=BLACK, font=self._font, anchor=anchor)

    def rectangle(self, x: float, y: float, width: float, height: float, fill: Colour | None = None) -> None:
        self._pen.rectangle((x, y, x + width, y + height), fill, None if fill else BLACK)

    def picture(self, x: float, y: float, picture: Pictures.Image) -> None:
        self._picture.paste(picture, (round(x), round(y)))

    def stack(self, x: int, y: int, height: int, columns: Columns) -> None:
        level = np.linspace(1, 0, height)[:, None]
        label = np.sum([level > edge for edge in columns.edges.T[:-1]], axis=0)
        pixels = np.array(columns.colours, np.uint8)[label]
        diagonal = np.add.outer(np.arange(height), np.arange(len(columns.edges)))
        stripes = diagonal % STRIPE_EVERY_PX < STRIPE_PX
        pixels[(stripes & columns.striped) | np.isnan(columns.edges[:, 0])] = 255
        self._picture.paste(Pictures.fromarray(pixels), (x, y))

    def encoded(self) -> bytes:
        return _png(self._picture)


class VectorCanvas:
    """An SVG."""

    def __init__(self, width: int, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="sans-serif" font-size="{TEXT_PX}">',
            f'<pattern id="stripes" width="{STRIPE_EVERY_PX}" height="{STRIPE_EVERY_PX}" '
            f'patternUnits="userSpaceOnUse" patternTransform="rotate(45) scale({0.5**0.5:.4f})">'
            f'<rect width="{STRIPE_PX}" height="{STRIPE_EVERY_PX}" fill="white"/></pattern>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def text(self, x: float, y: float, text: str, anchor: str) -> None:
        across = {"l": "start", "m": "middle", "r": "end"}[anchor[0]]
        down = {"m": "central", "t": "hanging"}[anchor[1]]
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{across}" dominant-baseline="{down}">'
            f"{escape(text)}</text>"
        )

    def rectangle(self, x: float, y: float, width: float, height: float, fill: Colour | None = None) -> None:
        paint = f'fill="{_hex(fill)}"' if fill else 'fill="none" stroke="black"'
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" {paint}/>')

    def picture(self, x: float, y: float, picture: Pictures.Image) -> None:
        data = base64.b64encode(_png(picture)).decode()
        self._parts.append(
            f'<image x="{x:g}" y="{y:g}" width="{picture.width}" height="{picture.height}" '
            f'href="data:image/png;base64,{data}"/>'
        )

    def stack(self, x: int, y: int, height: int, columns: Columns) -> None:
        bottom = y + height
        tops = np.round(bottom - height * columns.edges, 1)
        runs = list(_runs(tops, columns.striped))
        # Each share is painted down to the bottom. The shares below it are painted over it.
        for top, colour in reversed(list(zip(tops.T, columns.colours, strict=True))):
            path = "".join(f"M{x + start} {bottom}V{top[start]:g}H{x + end}V{bottom}z" for start, end in runs)
            self._parts.append(f'<path d="{path}" fill="{_hex(colour)}"/>')
        path = "".join(
            f"M{x + start} {y}H{x + end}V{bottom}H{x + start}z"
            for start, end in runs
            if columns.striped[start]
        )
        self._parts.append(f'<path d="{path}" fill="url(#stripes)"/>')

    def encoded(self) -> bytes:
        return "\n".join([*self._parts, "</svg>\n"]).encode()


def _runs(tops: NDArray[np.float32], striped: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal columns that are not empty."""
    changes = np.any(tops[1:] != tops[:-1], axis=1) | (striped[1:] != striped[:-1])
    starts = [0, *(np.flatnonzero(changes) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(tops)], strict=True):
        if not np.isnan(tops[start, 0]):
            yield start, end


def _png(picture: Pictures.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _hex(colour: Colour) -> str:
    return "#" + bytes(colour).hex()
