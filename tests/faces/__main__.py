"""`make faces`: how photos that are hard to search are answered. docs/explanation/quality.md has its tables.

Each photo must show one main face. The answer of the photo as it is counts as right, if it is certain.
Pictures without a face are searched, too.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageOps

from service.assembly import assemble
from service.core.deadline import NEVER
from service.core.errors import ServiceError
from service.core.query import Query
from service.core.seen import Seen
from service.core.timings import Timings
from service.settings import read_settings
from service.telemetry.logs import configure_logs

TURNED_PX = 1280  # longer side of the turned photos
GREY = (127, 127, 127)  # beside a turned photo
ANGLES = range(0, 360, 15)
MARGINS = (0.0, 0.15, 0.5, 1.0)  # around a face, in its widths and heights
CLOSE_UPS_PX = (300, 640, 1000, 2000, 3000, 5000)
SELFIE_PX = (3000, 4000)  # 12 megapixels
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the height of a selfie
EMPTY = ("brick", "cat", "clock", "coffee", "coins", "grass", "gravel", "moon", "page", "rocket", "text")
OUTCOMES = ("right, certain", "right, uncertain", "wrong, uncertain", "wrong, certain", "no face")

See = Callable[[Image.Image], Awaitable[Seen]]


def photos(folder: Path | None) -> Iterator[Image.Image]:
    if folder is None:
        yield Image.fromarray(skimage.data.astronaut())
        return
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in (".jpg", ".png"):
            yield ImageOps.exif_transpose(Image.open(file)).convert("RGB")


def without_faces(folder: Path | None) -> Iterator[Image.Image]:
    if folder is not None:
        yield from photos(folder)
        return
    for name in EMPTY:
        yield Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def turned(photo: Image.Image, degrees: int) -> Image.Image:
    """degrees: clockwise."""
    return photo.rotate(-degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=GREY)


def face_of(photo: Image.Image, box: Iterable[float], margin: float) -> Image.Image:
    left, top, right, bottom = box
    across, down = margin * (right - left), margin * (bottom - top)
    upper_left = max(0, round(left - across)), max(0, round(top - down))
    return photo.crop(
        (*upper_left, min(photo.width, round(right + across)), min(photo.height, round(bottom + down)))
    )


def selfie(face: Image.Image, share: float) -> Image.Image:
    """A photo of 12 megapixels. A face takes this share of its height, or all of its width."""
    width, height = SELFIE_PX
    scene = Image.new("RGB", SELFIE_PX, GREY)
    scale = min(share * height / face.height, width / face.width)
    enlarged = face.resize((round(face.width * scale), round(face.height * scale)), Image.Resampling.BICUBIC)
    scene.paste(enlarged, ((width - enlarged.width) // 2, (height - enlarged.height) // 2))
    return scene


def outcome(seen: Seen, emotion: str) -> str:
    """Of the largest face."""
    if not seen.face_count:
        return "no face"
    return f"{'right' if seen.emotions[0] == emotion else 'wrong'}, {seen.verdict(0)}"


def table(title: str, columns: Iterable[str], rows: dict[str, Counter[str]]) -> None:
    columns = list(columns)
    print(f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|", sep="\n")
    for name, counts in rows.items():
        print(f"| {name} | {' | '.join(str(counts[column]) for column in columns)} |")
    print()


async def measure(folder: Path | None, empty: Path | None) -> None:
    turns: dict[str, Counter[str]] = {f"{degrees} degrees": Counter() for degrees in ANGLES}
    close_ups: dict[str, Counter[str]] = {f"{px} px": Counter() for px in CLOSE_UPS_PX}
    selfies: dict[str, Counter[str]] = {f"{share:.0%} of the height": Counter() for share in SHARES}
    async with assemble(read_settings(processes=1, decode_budget_s=600)) as assembly:

        async def see(image: Image.Image) -> Seen:
            return await assembly.faces.run(np.asarray(image), Query(), NEVER, Timings())

        async for photo, upright in _clear(photos(folder), see):
            emotion, box = upright.emotions[0], upright.boxes[0].tolist()
            smaller = (
                ImageOps.contain(photo, (TURNED_PX, TURNED_PX)) if max(photo.size) > TURNED_PX else photo
            )
            for degrees in ANGLES:
                turns[f"{degrees} degrees"][outcome(await see(turned(smaller, degrees)), emotion)] += 1
            for margin in MARGINS:
                for px in CLOSE_UPS_PX:
                    face = ImageOps.contain(face_of(photo, box, margin), (px, px), Image.Resampling.BICUBIC)
                    close_ups[f"{px} px"][_faces(await see(face))] += 1
            for share in SHARES:
                seen = await see(selfie(face_of(photo, box, 0.2), share))
                selfies[f"{share:.0%} of the height"][_faces(seen)] += 1
        false: Counter[str] = Counter()
        for image in without_faces(empty):
            seen = await see(image)
            false.update({"pictures": 1, "false faces": seen.face_count, "certain": seen.verdicts["certain"]})
    table("turned clockwise by", OUTCOMES, turns)
    table("close-ups, longer side", ("one face", "no face", "more"), close_ups)
    table("selfies of 12 megapixels, face", ("one face", "no face", "more"), selfies)
    table("without a face", ("pictures", "false faces", "certain"), {"all": false})


async def _clear(images: Iterable[Image.Image], see: See) -> AsyncIterator[tuple[Image.Image, Seen]]:
    """The photos with exactly one face, which is certain."""
    for image in images:
        try:
            seen = await see(image)
        except ServiceError:
            continue
        if seen.face_count == 1 and seen.verdict(0) == "certain":
            yield image, seen


def _faces(seen: Seen) -> str:
    return {0: "no face", 1: "one face"}.get(seen.face_count, "more")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faces", description=__doc__)
    parser.add_argument("--photos", type=Path, help="a folder of photos; default: one portrait")
    parser.add_argument("--without-faces", type=Path, help="a folder of pictures; default: eleven")
    configure_logs("error", "text")
    options = parser.parse_args()
    asyncio.run(measure(options.photos, options.without_faces))


if __name__ == "__main__":
    main()
