"""`python -m tests.playground.samples`: makes the sample photos of the playground.

The crowd is drawn, because the repository has one photo of a person only: the portrait. The third sample
shows it four times.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

PLAYGROUND = Path(__file__).parents[2] / "service" / "playground"
PORTRAIT = PLAYGROUND / "sample-portrait.jpg"
QUALITY = 72

Colour = tuple[int, int, int]
Range = tuple[float, float]
Points = Sequence[tuple[float, float]]

WALL: Colour = (219, 224, 231)
# Skin and hair.
LOOKS: list[tuple[Colour, Colour]] = [
    ((246, 214, 190), (180, 140, 85)),
    ((246, 214, 190), (110, 50, 30)),
    ((233, 190, 160), (70, 45, 28)),
    ((233, 190, 160), (150, 150, 155)),
    ((208, 158, 124), (40, 28, 22)),
    ((208, 158, 124), (120, 80, 45)),
    ((170, 120, 88), (30, 30, 34)),
    ((136, 90, 64), (35, 26, 24)),
    ((104, 68, 50), (28, 24, 24)),
]
SHIRTS: list[Colour] = [
    (70, 96, 150),
    (150, 84, 84),
    (84, 136, 110),
    (120, 100, 150),
    (196, 160, 90),
    (80, 88, 100),
]


@dataclass(frozen=True, slots=True)
class Expression:
    """Ranges of what is drawn. Lengths are px of a head in 240 x 260; y grows downwards.

    eye: half of the height of an eye; brow_in, brow_out: how far the ends of a brow are below their usual
    place; corners: how far the corners of the mouth are below its middle; gap: height of the open mouth.
    """

    eye: Range = (7, 9)
    brow_in: Range = (-1, 3)
    brow_out: Range = (-1, 3)
    mouth: Range = (24, 30)
    corners: Range = (-2, 1)
    gap: Range = (0, 0)
    teeth: bool = False
    frown: bool = False


NEUTRAL = Expression()
HAPPY = Expression((6, 8), (-4, 1), (-2, 1), (28, 33), (-13, -8), (13, 20), teeth=True)
SURPRISED = Expression((13, 16), (-16, -10), (-12, -7), (12, 16), (-1, 1), (26, 38))
SAD = Expression((5, 7), (-13, -8), (5, 9), (20, 26), (8, 13), frown=True)
ANGRY = Expression((6, 8), (10, 15), (-6, -2), (24, 30), (5, 9), (8, 14), teeth=True, frown=True)
CROWD = [HAPPY] * 11 + [NEUTRAL] * 8 + [SURPRISED] * 5 + [SAD] * 4 + [ANGRY] * 2
COLUMNS, STEP_X, STEP_Y = 10, 118, 168
SCALE = 3  # drawn larger, then reduced: the lines get smooth


class Head:
    """One drawn head with shoulders, RGBA, 240 x 260 px times `SCALE`."""

    def __init__(self, dice: random.Random, expression: Expression) -> None:
        self.dice = dice
        self.expression = expression
        self.skin, self.hair = dice.choice(LOOKS)
        self.picture = Image.new("RGBA", (240 * SCALE, 260 * SCALE), (*WALL, 0))
        self.pen = ImageDraw.Draw(self.picture)
        self._head()
        for side in (-1, 1):
            self._eye(side)
        self._nose()
        self._mouth()
        self.picture = self.picture.filter(ImageFilter.GaussianBlur(1.2 * SCALE))

    def value(self, name: str) -> float:
        return self.dice.uniform(*getattr(self.expression, name))

    def oval(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.pen.ellipse((left * SCALE, top * SCALE, right * SCALE, bottom * SCALE), colour)

    def area(self, points: Points, colour: Colour) -> None:
        self.pen.polygon([(x * SCALE, y * SCALE) for x, y in points], colour)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        self.pen.line([(x * SCALE, y * SCALE) for x, y in points], colour, round(width * SCALE), "curve")

    def _head(self) -> None:
        shadow = shade(self.skin, 0.82)
        self.area(
            [(22, 260), (46, 232), (95, 222), (145, 222), (194, 232), (218, 260)], self.dice.choice(SHIRTS)
        )
        if self.dice.random() < 0.5:
            self.oval(38, 12, 202, 226, self.hair)
        else:
            self.oval(48, 8, 192, 170, self.hair)
        self.area([(97, 190), (143, 190), (147, 236), (93, 236)], shadow)
        self.oval(50, 112, 66, 150, shadow)
        self.oval(174, 112, 190, 150, shadow)
        self.oval(60, 32, 180, 222, self.skin)
        parting = 120 + self.dice.uniform(-20, 20)
        fringe = [(58.0, 92.0), (70.0, 40.0), (120.0, 24.0), (170.0, 40.0), (182.0, 92.0)]
        self.area([*fringe, (166, 66), (parting, 58), (74, 70)], self.hair)

    def _eye(self, side: int) -> None:
        x, half, shadow = 120 + side * 26, self.value("eye"), shade(self.skin, 0.6)
        arc = [(x - 16 + 2 * step, math.sin(math.pi * step / 16)) for step in range(17)]
        lid = [(at, 112 - half * rise) for at, rise in arc]
        self.area(lid + [(at, 112 + 0.7 * half * rise) for at, rise in reversed(arc)], (245, 243, 240))
        # The lids cover the iris at its top and bottom.
        top, bottom = 112 - min(8.0, half), 112 + min(8.0, 0.7 * half)
        self.oval(x - 8, top, x + 8, bottom, (84, 62, 46))
        self.oval(x - 3, 108, x + 3, 114, (15, 12, 12))
        self.oval(x + 1, 107, x + 4, 110, (250, 250, 250))
        self.line(lid, shadow, 3)
        inner, outer = self.value("brow_in"), self.value("brow_out")
        brow = [
            (x - side * 17, 88 + inner),
            (x + side * 2, 83 + (inner + outer) / 2),
            (x + side * 20, 90 + outer),
        ]
        self.line(brow, shade(self.hair, 0.7), 5.5)
        if self.expression.frown:
            self.line([(120 + side * 5, 88), (120 + side * 6, 100)], shade(self.skin, 0.82), 2)

    def _nose(self) -> None:
        self.line([(116, 118), (111, 150)], shade(self.skin, 0.82), 3)
        self.line([(106, 156), (114, 160), (120, 158), (126, 160), (134, 156)], shade(self.skin, 0.6), 3)

    def _mouth(self) -> None:
        wide, corners, gap = self.value("mouth"), self.value("corners"), self.value("gap")
        red, green, blue = self.skin
        lip = (round(red * 0.82), round(green * 0.58), round(blue * 0.55))
        places = [step / 10 - 1 for step in range(21)]
        # A smile opens downwards, other mouths both ways.
        rise = 0 if corners < -4 else gap / 2
        upper = [(120 + wide * at, 186 + corners * at**2 - rise * math.sqrt(1 - at**2)) for at in places]
        lower = [(x, y + gap * math.sqrt(1 - at**2)) for (x, y), at in zip(upper, places, strict=True)]
        if gap:
            self.area(upper + lower[::-1], (70, 25, 30))
        if self.expression.teeth:
            edge = [(x, y + 0.5 * gap * (1 - at**4)) for (x, y), at in zip(upper, places, strict=True)]
            self.area(upper + edge[::-1], (246, 243, 238))
        self.line(upper, lip if gap else shade(lip, 0.65), 4)
        self.line(lower if gap else [(x, y + 5) for x, y in upper[3:-3]], lip, 5)


def shade(colour: Colour, share: float) -> Colour:
    red, green, blue = (round(part * share) for part in colour)
    return red, green, blue


def crowd(seed: int) -> Image.Image:
    """Three rows of drawn people, the front row lowest."""
    dice = random.Random(seed)
    expressions = dice.sample(CROWD, len(CROWD))
    rows = len(CROWD) // COLUMNS
    picture = Image.new("RGB", (COLUMNS * STEP_X + 60, rows * STEP_Y + 20), WALL)
    for index, expression in enumerate(expressions):
        row, column = divmod(index, COLUMNS)
        height = 170 + 8 * row
        head = Head(dice, expression).picture.resize(
            (round(height * 240 / 260), height), Image.Resampling.LANCZOS
        )
        x = column * STEP_X + (row % 2) * 36 - 8
        picture.paste(head, (x, row * STEP_Y + dice.randint(0, 10)), head)
    return picture


def hard(portrait: Image.Image) -> Image.Image:
    """The face of the portrait four times: as it is, in the dark, turned and blurred."""
    face = portrait.crop((110, 0, 350, 240))
    dark = ImageEnhance.Brightness(face).enhance(0.1)
    blurred = face.filter(ImageFilter.GaussianBlur(7))
    picture = Image.new("RGB", (480, 480))
    for index, one in enumerate(
        (face, dark, face.rotate(115, Image.Resampling.BICUBIC, fillcolor=(96, 104, 112)), blurred)
    ):
        picture.paste(one, (index % 2 * 240, index // 2 * 240))
    return picture


def main() -> None:
    samples = {"crowd": crowd(7), "hard": hard(Image.open(PORTRAIT).convert("RGB"))}
    for name, picture in samples.items():
        path = PLAYGROUND / f"sample-{name}.jpg"
        picture.save(path, quality=QUALITY, optimize=True)
        print(f"{path.name}: {picture.size}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
