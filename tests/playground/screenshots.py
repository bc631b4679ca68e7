"""`python -m tests.playground.screenshots`: takes the screenshots of docs/guides/playground.md."""

from __future__ import annotations

import io
import math
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, FloatRect, expect

from tests.conftest import encoded
from tests.playground.browser import CAMERA_PX, chromium
from tests.playground.samples import HAPPY, NEUTRAL, SAD, SURPRISED, WALL, Head
from tests.playground.visit import visit
from tests.scenes import video
from tests.system.conftest import running

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LIMIT_BYTES = 300_000
MARGIN_PX = 20
PAGE_COLOURS = 96


@dataclass(frozen=True, slots=True)
class Shot:
    """A screenshot of the page with a sample, a video or the camera. `last`: the element at its end."""

    name: str
    scheme: str
    size: tuple[int, int]
    sample: str
    last: str = ".board"


SHOTS = [
    Shot("playground-light", "light", (1440, 860), "portrait", "#answer"),
    Shot("playground-dark", "dark", (1440, 900), "crowd"),
    Shot("playground-narrow", "light", (360, 800), "portrait"),
    Shot("playground-video", "light", (1440, 900), "video"),
    Shot("playground-live", "light", (1440, 900), "camera"),
]
LIVE_MS = 65_000  # fills the timeline
FRAMES_OF_EACH_FACE = 150  # the camera shows about 30 in a second
VIDEO_RATE, FACE_S = 10, 4


def two_people() -> list[Image.Image]:
    """Two drawn people whose expressions change."""
    left = (NEUTRAL, HAPPY, HAPPY, SURPRISED)
    right = (HAPPY, HAPPY, NEUTRAL, NEUTRAL, SAD)
    frames = []
    for index in range(math.lcm(len(left), len(right))):
        picture = Image.new("RGB", CAMERA_PX, WALL)
        for place, expressions in enumerate((left, right)):
            # Equal dice draw the same person each time.
            head = Head(random.Random(20 + place), expressions[index % len(expressions)]).picture
            head = head.resize((288, 312), Image.Resampling.LANCZOS)
            picture.paste(head, (30 + 300 * place, CAMERA_PX[1] - 312), head)
        frames.append(picture)
    return frames


def call(folder: Path) -> Path:
    """The two people as a video."""
    pictures = [np.asarray(picture) for picture in two_people()]
    seconds = FACE_S * len(pictures)
    frames = ((number, pictures[number // (FACE_S * VIDEO_RATE)]) for number in range(VIDEO_RATE * seconds))
    return video(folder / "call.webm", frames, rate=VIDEO_RATE)


def take(browser: Browser, url: str, shot: Shot, recording: Path) -> bytes:
    """The screenshot, as PNG."""
    width, height = shot.size
    context = {"color_scheme": shot.scheme, "viewport": {"width": width, "height": height}}
    with visit(browser, url, reduced_motion="reduce", **context) as page:
        if shot.sample == "camera":
            page["#camera-start"].click()
            page["#camera-live"].click()
            page.page.wait_for_timeout(LIVE_MS)
            expect(page["#rows .now"]).to_have_text(["surprise", "happiness"], timeout=2 * LIVE_MS)
        elif shot.sample == "video":
            page["#file"].set_input_files(recording)
            expect(page["#work"]).to_be_hidden(timeout=LIVE_MS)
            page["#rows canvas"].first.click(position={"x": 300, "y": 10})
            expect(page[".box"]).to_have_count(2)
        else:
            # The first answer of a service takes longer. The second one shows usual times.
            page[f'#samples button:has(img[src$="sample-{shot.sample}.jpg"])'].click()
            expect(page["#answer"]).to_be_visible()
            page["#whole"].evaluate("whole => whole.dispatchEvent(new Event('change', {bubbles: true}))")
            expect(page["#faces"]).to_have_attribute("aria-busy", "false")
        page.page.evaluate("scrollTo(0, 0)")
        end = page[shot.last].bounding_box()
        photo = page["#image" if shot.sample in ("portrait", "crowd") else "video"].bounding_box()
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
    camera = b"".join(encoded(picture) * FRAMES_OF_EACH_FACE for picture in two_people())
    folder = tempfile.TemporaryDirectory()
    with folder, chromium(Path(folder.name), camera) as browser, running() as served:
        recording = call(Path(folder.name))
        for shot in SHOTS:
            png = take(browser, served.url, shot, recording)
            if len(png) > LIMIT_BYTES:
                raise SystemExit(f"{shot.name} has {len(png)} bytes, and should have {LIMIT_BYTES} at most.")
            (IMAGES / f"{shot.name}.png").write_bytes(png)
            print(f"{shot.name}.png: {len(png) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
