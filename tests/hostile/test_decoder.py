"""The corpus in this process: the decoder gives pixels or one of three errors, in bounded time and memory."""

from __future__ import annotations

import time

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.attack import PIXEL_LIMIT, survives
from tests.hostile.bombs import BOMBS
from tests.hostile.mutations import damaged_images
from tests.hostile.originals import originals

MB = 1e6
# Bytes that a decoder may need for each pixel that it may be asked for: an animated WebP's two canvases, its
# frame and Pillow's image, 4 each.
BYTES_PER_PIXEL = 17

# Seconds of CPU, on every thread of the process. The largest sound images need about 2 of them.
CPU_LIMIT_S = 15


def cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("name", originals())
def test_originals_are_sound(name: str) -> None:
    assert survives(originals()[name]) == ""


def test_damaged_images() -> None:
    before = cpu_s()
    tried = refused = 0
    for _, file in damaged_images():
        tried += 1
        refused += bool(survives(file, pixel_limit=4_000_000))
    assert tried > 5000
    # Else the damage would be none.
    assert refused > tried / 3
    assert cpu_s() - before < tried * CPU_LIMIT_S / 100


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    file = BOMBS[name]()
    assert len(file) < 20_000_000, "the service would not read it"
    process = psutil.Process()
    before, spent = process.memory_info().rss, cpu_s()
    started = time.perf_counter()
    survives(file, pixel_limit=4_000_000)
    assert cpu_s() - spent < CPU_LIMIT_S, f"{time.perf_counter() - started:.1f} s"
    assert process.memory_info().rss - before < 4e6 * BYTES_PER_PIXEL + 50 * MB


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400))
def test_any_bytes(file: bytes) -> None:
    survives(file)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_bytes_within_a_sound_image(data: st.DataObject) -> None:
    file = originals()[data.draw(st.sampled_from(sorted(originals())))]
    at = data.draw(st.integers(0, len(file)))
    new = data.draw(st.binary(max_size=64))
    replaced = data.draw(st.integers(0, 64))
    survives(file[:at] + new + file[at + replaced :], pixel_limit=4_000_000)


@pytest.mark.parametrize("name", ["avif 40,000 tiles", "png 1,000,000 texts", "tiff 2,000,000 strips"])
def test_what_is_made_of_too_many_parts_is_refused_unread(name: str) -> None:
    """Decoders took between 8 and 43 s of CPU for each."""
    file = BOMBS[name]()
    spent = time.thread_time()
    assert survives(file, PIXEL_LIMIT) == "invalid_image"
    assert time.thread_time() - spent < 1
