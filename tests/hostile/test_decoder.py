"""The decoder answers each file with pixels or one of three errors, in bounded time and memory."""

from __future__ import annotations

import time

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.attack import PIXEL_LIMIT, try_decode
from tests.hostile.bombs import BOMBS
from tests.hostile.mutations import damaged_images
from tests.hostile.originals import originals

MB = 1e6
# Bytes that a decoder may need for each pixel. An animated WebP has two canvases, its frame and Pillow's
# image, with 4 bytes each.
BYTES_PER_PIXEL = 17

# CPU time of all threads of the process. The largest valid images need about 2 s.
CPU_LIMIT_S = 15


def cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("name", originals())
def test_originals_decode(name: str) -> None:
    assert try_decode(originals()[name]) == ""


def test_damaged_images_need_bounded_time() -> None:
    cpu_before_s = cpu_s()
    tried = refused = 0
    for _, file in damaged_images():
        tried += 1
        refused += bool(try_decode(file, pixel_limit=4_000_000))
    assert tried > 5000
    # With fewer refusals, the damage would be too small to test anything.
    assert refused > tried / 3
    assert cpu_s() - cpu_before_s < tried * CPU_LIMIT_S / 100


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_need_bounded_time_and_memory(name: str) -> None:
    file = BOMBS[name]()
    assert len(file) < 20_000_000, "the body is too large for the service"
    process = psutil.Process()
    rss_before, cpu_before_s = process.memory_info().rss, cpu_s()
    started = time.perf_counter()
    try_decode(file, pixel_limit=4_000_000)
    assert cpu_s() - cpu_before_s < CPU_LIMIT_S, f"{time.perf_counter() - started:.1f} s"
    assert process.memory_info().rss - rss_before < 4e6 * BYTES_PER_PIXEL + 50 * MB


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused(file: bytes) -> None:
    try_decode(file)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_bytes_in_a_valid_image_are_decoded_or_refused(data: st.DataObject) -> None:
    file = originals()[data.draw(st.sampled_from(sorted(originals())))]
    at = data.draw(st.integers(0, len(file)))
    new = data.draw(st.binary(max_size=64))
    replaced = data.draw(st.integers(0, 64))
    try_decode(file[:at] + new + file[at + replaced :], pixel_limit=4_000_000)


@pytest.mark.parametrize("name", ["avif 40,000 tiles", "png 1,000,000 texts", "tiff 2,000,000 strips"])
def test_a_file_of_too_many_parts_is_refused_before_decoding(name: str) -> None:
    """Without this refusal, decoders took between 8 and 43 s of CPU for each file."""
    file = BOMBS[name]()
    cpu_before_s = time.thread_time()
    assert try_decode(file, PIXEL_LIMIT) == "invalid_image"
    assert time.thread_time() - cpu_before_s < 1
