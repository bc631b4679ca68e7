"""Photos with their answers drawn on them."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from service.api.schemas import Face, ImageAnswer
from service.vision.decode import decode

# Of the palette of Okabe and Ito: told apart by people who do not see all colours, and by their dashes.
CERTAIN, UNCERTAIN = (0, 158, 115), (230, 159, 0)
LINE_SHARE, LEAST_LINE_PX = 1 / 300, 2
TEXT_SHARE_OF_BOX, LEAST_TEXT_PX, TEXT_SHARE_OF_IMAGE = 1 / 6, 11, 1 / 16
JPEG_QUALITY = 90
# Written as they are named; all other formats become JPEG.
KEPT = (".jpg", ".jpeg", ".png")


def would_overwrite(folder: Path) -> bool:
    """Whether pictures below `folder` would take the places of the photos that they are made from."""
    resolved = folder.resolve()
    return resolved == Path.cwd().resolve() or resolved == Path(resolved.anchor)


def target_of(path: str, folder: Path) -> Path:
    """Where the picture of an image belongs: below `folder` as the image lies below the working folder."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    inner = absolute.relative_to(here if absolute.is_relative_to(here) else absolute.anchor)
    target = folder / inner
    return target if target.suffix.lower() in KEPT else target.with_name(f"{target.name}.jpg")


def write_picture(data: bytes, answer: ImageAnswer, pixel_limit: int, target: Path) -> None:
    """The picture, whole or not at all. Raises `OSError`, and `ServiceError` for data that is no image."""
    picture = annotated(data, answer, pixel_limit)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    kind = "PNG" if target.suffix.lower() == ".png" else "JPEG"
    picture.save(unfinished, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {}))
    unfinished.replace(target)


def annotated(data: bytes, answer: ImageAnswer, pixel_limit: int) -> Image.Image:
    """The photo as a person sees it, without its metadata, with a box and a label for each face."""
    picture = Image.fromarray(decode(data, pixel_limit=pixel_limit).pixels)
    draw = ImageDraw.Draw(picture)
    line_px = max(LEAST_LINE_PX, round(min(picture.size) * LINE_SHARE))
    # The largest last: its label is the one to be read where faces crowd.
    for face in reversed(answer.faces):
        _box(draw, face, _thin(line_px, face))
    for face in reversed(answer.faces):
        _label(draw, face, _thin(line_px, face), picture.size)
    return picture


def _colour(face: Face) -> tuple[int, int, int]:
    return CERTAIN if face.verdict == "certain" else UNCERTAIN


def _thin(line_px: int, face: Face) -> int:
    """Frames of small faces must not hide them."""
    return max(LEAST_LINE_PX, min(line_px, round(face.box.width / 24)))


def _box(draw: ImageDraw.ImageDraw, face: Face, line_px: int) -> None:
    left, top = face.box.x, face.box.y
    right, bottom = left + face.box.width, top + face.box.height
    if face.verdict == "certain":
        draw.rectangle((left, top, right, bottom), outline=_colour(face), width=line_px)
        return
    step = max(1, min(4 * line_px, round(face.box.width / 8)))
    for x in range(int(left), int(right), 2 * step):
        end = min(x + step, right)
        draw.rectangle((x, top, end, top + line_px), _colour(face))
        draw.rectangle((x, bottom - line_px, end, bottom), _colour(face))
    for y in range(int(top), int(bottom), 2 * step):
        end = min(y + step, bottom)
        draw.rectangle((left, y, left + line_px, end), _colour(face))
        draw.rectangle((right - line_px, y, right, end), _colour(face))


def _label(draw: ImageDraw.ImageDraw, face: Face, line_px: int, size: tuple[int, int]) -> None:
    """Above the box, or inside it where there is no room; never beyond the picture's sides."""
    text = f"{face.emotion} {100 * face.confidence:.0f} %"
    text_px = max(LEAST_TEXT_PX, min(face.box.width * TEXT_SHARE_OF_BOX, min(size) * TEXT_SHARE_OF_IMAGE))
    font = ImageFont.load_default(text_px)
    if face.verdict != "certain":
        spelt = f"uncertain: {text}"
        # Labels of a crowd cover its faces.
        text = spelt if draw.textlength(spelt, font) <= 2 * face.box.width else f"? {text}"
    padding = line_px
    width = draw.textlength(text, font) + 2 * padding
    height = text_px * 1.25 + padding
    left = max(0.0, min(face.box.x, size[0] - width))
    top = face.box.y - height if face.box.y >= height else face.box.y
    draw.rectangle((left, top, left + width, top + height), _colour(face))
    draw.text((left + padding, top + height / 2), text, (0, 0, 0), font, anchor="lm")
