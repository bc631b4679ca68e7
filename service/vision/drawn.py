"""A drawn face that detectors find, instead of a photo of a person."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter

_WIDTH, _HEIGHT = 200, 240


def drawn_face(height_px: int) -> Image.Image:
    """RGB, `height_px` high and 5/6 of `height_px` wide."""
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), (150, 160, 170))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((30, 10, 170, 230), (70, 45, 30))  # hair
    draw.ellipse((42, 35, 158, 225), (215, 170, 140))
    for x in (75, 125):
        draw.ellipse((x - 17, 98, x + 17, 116), (240, 240, 240))
        draw.ellipse((x - 8, 98, x + 8, 116), (40, 25, 20))
        draw.line((x - 20, 86, x + 20, 84), (60, 40, 30), 6)
    draw.polygon(((100, 110), (86, 155), (114, 155)), (190, 140, 115))
    draw.line((88, 157, 112, 157), (120, 80, 70), 4)
    draw.ellipse((72, 172, 128, 196), (170, 70, 70))
    draw.line((72, 184, 128, 184), (90, 30, 30), 4)
    size = max(1, round(height_px * _WIDTH / _HEIGHT)), max(1, height_px)
    return picture.filter(ImageFilter.GaussianBlur(3)).resize(size)
