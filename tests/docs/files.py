"""Files that the pages use. They are made when a block names them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import skimage.data
from PIL import Image

from tests.conftest import ASTRONAUT_FACE, encoded
from tests.scenes import Actor, frames, moving, video

KEY = "xn_" + "k" * 43
KEYS_FILE = f"""
[mobile]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
scopes = ["batch", "predict"]
rate = "3/hour"
"""


def _photo() -> bytes:
    return encoded(skimage.data.astronaut())


def _face() -> bytes:
    return encoded(Image.fromarray(skimage.data.astronaut()).crop(ASTRONAUT_FACE), "PNG")


def _no_face() -> bytes:
    ramp = np.linspace(0, 255, 320, dtype=np.uint8)
    return encoded(np.repeat(np.tile(ramp, (240, 1))[:, :, None], 3, axis=2))


def _two_faces() -> bytes:
    photo = Image.fromarray(skimage.data.astronaut())
    both = Image.new("RGB", (1024, 512))
    both.paste(photo)
    both.paste(photo.resize((400, 400)), (600, 50))
    return encoded(both, "PNG")


def _twelve_faces() -> bytes:
    """A photo of twelve faces."""
    photo = Image.fromarray(skimage.data.astronaut()).resize((256, 256))
    return encoded(np.tile(np.asarray(photo), (3, 4, 1)))


def _two_people() -> bytes:
    """A video of two seconds. One person is on the left, as the customer in a call, and one on the right."""
    sides = [Actor("left", 220, moving((160, 240), (5, 0))), Actor("right", 220, moving((480, 240), (0, 0)))]
    pictures = {number: pixels for number, (_, pixels) in enumerate(frames(sides, 2))}
    with TemporaryDirectory() as folder:
        return video(Path(folder) / "two.mp4", pictures, rate=10).read_bytes()


def _icon() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "ICO")
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "photo.jpg": _photo,
    "nobody.jpg": _no_face,
    "face.png": _face,
    "notes.txt": lambda: b"This is a text and no picture.\n",
    "icon.ico": _icon,
    # The service refuses this photo by its header, without decoding.
    "huge.jpg": lambda: encoded(Image.new("L", (8000, 6500)), quality=1),
    "big.jpg": lambda: _photo() + bytes(25_000_000),
    # Comments of blocks name this file. The pages make `keys.toml` themselves.
    "known-keys.toml": KEYS_FILE.encode,
    "album/ada.jpg": _photo,
    "album/nobody.jpg": _no_face,
    "photos/astronaut.jpg": _photo,
    "photos/broken.jpg": lambda: b"no photo",
    "photos/coffee.jpg": _no_face,
    "photos/party/two.png": _two_faces,
    "lesson/09-00.jpg": _twelve_faces,
    "call.mp4": _two_people,
    "walk.mp4": _two_people,
    "calls/walk.mp4": _two_people,
    **{f"frames/{number}.jpg": _photo for number in range(3)},
}


def make_files(text: str, folder: Path) -> None:
    """Make each file of `FILES` that the text names, by its own name or by its folder."""
    for name, make in FILES.items():
        target = folder / name
        if re.search(rf"\b{re.escape(name.split('/')[0])}\b", text) and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(make())
