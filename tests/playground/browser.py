"""A real Chromium that sees the astronaut in its camera."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import encoded

CAMERA_PX = (640, 480)
# Where the astronaut's photo stands in a frame of the camera, and how large: left, top, scale.
IN_CAMERA = (80, 0, 480 / 512)
FRAMES = 4


def program() -> str | None:
    """Debian's Chromium; Playwright's own would have to be downloaded."""
    return shutil.which("chromium")


def write_camera(path: Path) -> None:
    """A video that shows the astronaut, and keeps still: frames of JPEG, one after the other."""
    left, top, scale = IN_CAMERA
    frame = Image.new("RGB", CAMERA_PX, (96, 104, 112))
    side = round(512 * scale)
    frame.paste(Image.fromarray(skimage.data.astronaut()).resize((side, side)), (left, top))
    path.write_bytes(encoded(np.asarray(frame)) * FRAMES)


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Headless; `folder` takes the video of its camera."""
    video = folder / "camera.mjpeg"
    write_camera(video)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program(),
            args=[
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-video-capture={video}",
            ],
        )
        yield browser
        browser.close()
