"""`python -m tests.playground.screenshots`: takes the screenshots of docs/guides/playground.md."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image
from playwright.sync_api import Browser, FloatRect

from tests.conftest import encoded
from tests.playground.browser import chromium
from tests.playground.visit import visit
from tests.system.conftest import running

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LIMIT_BYTES = 300_000
MARGIN_PX = 20
PAGE_COLOURS = 96


@dataclass(frozen=True, slots=True)
class Shot:
    """A screenshot of the page, from the top to the end of the element `last`."""

    name: str
    scheme: str
    size: tuple[int, int]
    photo: Image.Image
    include: tuple[str, ...]
    status: str
    last: str


def two_faces() -> Image.Image:
    """The same face twice: upright, and rotated so far that the model is uncertain."""
    face = Image.fromarray(skimage.data.astronaut()).crop((90, 0, 390, 300))
    both = Image.new("RGB", (600, 300))
    both.paste(face, (0, 0))
    both.paste(face.rotate(115, fillcolor=(96, 104, 112)), (300, 0))
    return both


def shots() -> list[Shot]:
    astronaut = Image.fromarray(skimage.data.astronaut())
    parts = ("landmarks", "experts")
    two = "2 faces found, 1 uncertain."
    return [
        Shot("playground-light", "light", (1440, 860), astronaut, (), "1 face found.", "#answer"),
        Shot("playground-dark", "dark", (1440, 900), two_faces(), parts, two, ".pair"),
        Shot("playground-narrow", "light", (360, 800), astronaut, (), "1 face found.", ".pair"),
    ]


def take(browser: Browser, url: str, shot: Shot) -> bytes:
    """The screenshot, as PNG."""
    width, height = shot.size
    context = {"color_scheme": shot.scheme, "viewport": {"width": width, "height": height}}
    with visit(browser, url, reduced_motion="reduce", **context) as page:
        page.include(*shot.include)
        # The first answer of a service takes longer. The second one shows usual times.
        for _ in range(2):
            page.drop(encoded(shot.photo), "astronaut.jpg")
            page.expect_status(shot.status)
        end, photo = page[shot.last].bounding_box(), page["#image"].bounding_box()
        assert end
        assert photo
        clip = FloatRect(x=0, y=0, width=width, height=end["y"] + end["height"] + MARGIN_PX)
        taken = page.page.screenshot(full_page=True, clip=clip)
    left, top = round(photo["x"]), round(photo["y"])
    return in_256_colours(taken, (left, top, left + round(photo["width"]), top + round(photo["height"])))


def in_256_colours(png: bytes, photo: tuple[int, int, int, int]) -> bytes:
    """The screenshot in 256 colours, a third of its size.

    The page keeps its `PAGE_COLOURS` most frequent colours. The photo, in the box `photo`, gets the others.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    page = picture.copy()
    page.paste(picture.getpixel((0, 0)), photo)  # type: ignore[arg-type]  # three numbers in RGB
    colours: list[Any] = page.getcolors(page.width * page.height) or []
    own = sorted(colours, reverse=True)[:PAGE_COLOURS]
    others = picture.crop(photo).quantize(256 - PAGE_COLOURS).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in own for part in colour] + others)
    file = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser, running() as served:
        for shot in shots():
            png = take(browser, served.url, shot)
            if len(png) > LIMIT_BYTES:
                raise SystemExit(f"{shot.name} has {len(png)} bytes, and should have {LIMIT_BYTES} at most.")
            (IMAGES / f"{shot.name}.png").write_bytes(png)
            print(f"{shot.name}.png: {len(png) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
