"""Photos with their answers drawn on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from service.core.arrays import Image as Pixels
from service.core.arrays import corner_and_size
from service.core.seen import Seen, Verdict
from service.vision.decode import decode

# Okabe-Ito palette: colour-blind people can tell these apart. Uncertain boxes are also dashed.
CERTAIN, UNCERTAIN = (0, 158, 115), (230, 159, 0)
LINE_SHARE, MIN_LINE_PX = 1 / 300, 2
TEXT_SHARE_OF_BOX, MIN_TEXT_PX, TEXT_SHARE_OF_IMAGE = 1 / 6, 11, 1 / 16
JPEG_QUALITY = 90
# These formats are kept; all others become JPEG.
KEPT = (".jpg", ".jpeg", ".png")


def would_overwrite(folder: Path) -> bool:
    """Whether pictures below `folder` would overwrite their own photos."""
    resolved = folder.resolve()
    return resolved == Path.cwd().resolve() or resolved == Path(resolved.anchor)


def target_of(path: str, folder: Path) -> Path:
    """Path of an image's picture: the image's path relative to the working folder, moved to `folder`."""
    target = folder / inner_path(path)
    return target if target.suffix.lower() in KEPT else target.with_name(f"{target.name}.jpg")


def inner_path(path: str) -> Path:
    """The path relative to the working folder, or to the root for a file elsewhere."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    return absolute.relative_to(here if absolute.is_relative_to(here) else absolute.anchor)


def write_picture(data: bytes, seen: Seen, pixel_limit: int, target: Path) -> None:
    """Write the picture atomically. Raises `OSError`, and `ServiceError` for data that is not an image."""
    picture = annotated(data, seen, pixel_limit)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    kind = "PNG" if target.suffix.lower() == ".png" else "JPEG"
    picture.save(unfinished, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {}))
    unfinished.replace(target)


def annotated(data: bytes, seen: Seen, pixel_limit: int) -> Image.Image:
    """The photo, upright and without metadata, with a box and a label for each face."""
    texts = [
        f"{emotion} {100 * confidence:.0f} %"
        for emotion, confidence in zip(seen.emotions, seen.confidences, strict=True)
    ]
    verdicts = [seen.verdict(face) for face in range(seen.face_count)]
    return marked(decode(data, pixel_limit=pixel_limit).pixels, seen, texts, verdicts)


def marked(pixels: Pixels, seen: Seen, texts: Sequence[str], verdicts: Sequence[Verdict]) -> Image.Image:
    """A copy of the pixels, uint8 [H,W,3], with a box, a text and a verdict for each face."""
    picture = Image.fromarray(pixels).copy()
    draw = ImageDraw.Draw(picture)
    line_px = max(MIN_LINE_PX, round(min(picture.size) * LINE_SHARE))
    boxes = corner_and_size(seen.boxes).tolist()
    marks = [_mark(*face, line_px) for face in zip(boxes, texts, verdicts, strict=True)]
    # The largest face is drawn last, so that no other label covers its label.
    marks.reverse()
    for mark in marks:
        _box(draw, mark)
    for mark in marks:
        _label(draw, mark, picture.size)
    return picture


@dataclass(frozen=True, slots=True)
class _Mark:
    """How one face is marked; left, top, width, height: px of the picture."""

    left: float
    top: float
    width: float
    height: float
    certain: bool
    text: str
    line_px: int

    @property
    def colour(self) -> tuple[int, int, int]:
        return CERTAIN if self.certain else UNCERTAIN


def _mark(box: list[float], text: str, verdict: Verdict, line_px: int) -> _Mark:
    left, top, width, height = box
    # Lines around small faces must not hide them.
    thin_px = max(MIN_LINE_PX, min(line_px, round(width / 24)))
    return _Mark(left, top, width, height, verdict == "certain", text, thin_px)


def _box(draw: ImageDraw.ImageDraw, mark: _Mark) -> None:
    left, top, line_px = mark.left, mark.top, mark.line_px
    right, bottom = left + mark.width, top + mark.height
    if mark.certain:
        draw.rectangle((left, top, right, bottom), outline=mark.colour, width=line_px)
        return
    step = max(1, min(4 * line_px, round(mark.width / 8)))
    for x in range(int(left), int(right), 2 * step):
        end = min(x + step, right)
        draw.rectangle((x, top, end, top + line_px), mark.colour)
        draw.rectangle((x, bottom - line_px, end, bottom), mark.colour)
    for y in range(int(top), int(bottom), 2 * step):
        end = min(y + step, bottom)
        draw.rectangle((left, y, left + line_px, end), mark.colour)
        draw.rectangle((right - line_px, y, right, end), mark.colour)


def _label(draw: ImageDraw.ImageDraw, mark: _Mark, size: tuple[int, int]) -> None:
    """Draw the label above the box, or inside it if there is no room above."""
    text = mark.text
    text_px = max(MIN_TEXT_PX, min(mark.width * TEXT_SHARE_OF_BOX, min(size) * TEXT_SHARE_OF_IMAGE))
    font = ImageFont.load_default(text_px)
    if not mark.certain:
        spelt = f"uncertain: {text}"
        # In a crowd, long labels would cover other faces.
        text = spelt if draw.textlength(spelt, font) <= 2 * mark.width else f"? {text}"
    padding = mark.line_px
    width = draw.textlength(text, font) + 2 * padding
    height = text_px * 1.25 + padding
    left = max(0.0, min(mark.left, size[0] - width))
    top = mark.top - height if mark.top >= height else mark.top
    draw.rectangle((left, top, left + width, top + height), mark.colour)
    draw.text((left + padding, top + height / 2), text, (0, 0, 0), font, anchor="lm")
