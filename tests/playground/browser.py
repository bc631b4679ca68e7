"""A Chromium whose camera shows a video, by default the astronaut."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import skimage.data
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import encoded

CAMERA_PX = (640, 480)
# The place and the size of the astronaut's photo in a frame of the camera: left, top, scale.
PHOTO_IN_CAMERA = (80, 0, 480 / 512)
FRAMES = 4


def chromium_path() -> str | None:
    """Debian's Chromium. Playwright's own would have to be downloaded."""
    return shutil.which("chromium")


def astronaut_video() -> bytes:
    """A video that shows the astronaut: equal JPEG frames, one after the other."""
    left, top, scale = PHOTO_IN_CAMERA
    frame = Image.new("RGB", CAMERA_PX, (96, 104, 112))
    side = round(512 * scale)
    frame.paste(Image.fromarray(skimage.data.astronaut()).resize((side, side)), (left, top))
    return encoded(np.asarray(frame)) * FRAMES


@contextmanager
def chromium(folder: Path, mjpeg: bytes | None = None) -> Iterator[Browser]:
    """A headless Chromium. The video of its camera is written to `folder`."""
    video = folder / "camera.mjpeg"
    video.write_bytes(mjpeg or astronaut_video())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(),
            args=[
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-video-capture={video}",
            ],
        )
        yield browser
        browser.close()


def browser_fixture(scope: Literal["module", "package"]) -> object:
    """A fixture with one Chromium for the tests of its scope. Without Chromium, the tests are skipped."""

    def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
        if chromium_path() is None:
            pytest.skip("not installed: chromium")
        with chromium(tmp_path_factory.mktemp("camera")) as opened:
            yield opened

    return pytest.fixture(scope=scope)(browser)
