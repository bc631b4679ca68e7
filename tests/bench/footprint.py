"""The footprint of a checkout: disk space when it is installed, time to start, memory while it serves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench.checkout import Checkout
from tests.bench.figures import SERVED_ROUNDS, Figure, Remark, Row, Unmeasured, summary
from tests.bench.load import Outcome, Request, callers, post
from tests.bench.photos import mixed
from tests.bench.process import NotRunning, last_line, memory_mb
from tests.deploy.image import BASE, Buildah, missing, with_base
from tests.processes import stop

CALLERS = 8
WARM_UP_REQUESTS = 192
SIZES = 64  # different sizes of photos while memory is measured
SAMPLES = 20
LARGEST = 3  # number of packages that a note names


def footprint(checkout: Checkout, soak_requests: int) -> tuple[Callable[[], Iterator[Row]], ...]:
    """The measurements. If one fails, the others still run."""
    return (
        partial(_installation, checkout),
        partial(_image, checkout),
        partial(_start, checkout),
        partial(_memory, checkout, soak_requests),
    )


def _installation(checkout: Checkout) -> Iterator[Row]:
    """A clean clone of the last commit, installed as its README says, and the wheel alone."""
    yield Remark(checkout.name, str(checkout))
    with TemporaryDirectory() as name:
        folder = Path(name)
        clone, wheels, environment = folder / "clone", folder / "wheels", folder / "environment"
        _run(folder, "git", "clone", checkout.folder, clone)
        seconds = _run(clone, "make", "VENV=.venv", ".venv/.run")
        size_mb, packages = disk_mb(clone / ".venv"), _packages(clone / ".venv")
        yield summary("virtual environment of `make run`", "MB", [size_mb], packages)
        yield summary("installation by `make run`", "s", [seconds], "once")
        _run(clone, sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", wheels, ".")
        (wheel,) = wheels.iterdir()
        _run(folder, sys.executable, "-m", "venv", environment)
        _run(folder, environment / "bin" / "python", "-m", "pip", "install", wheel)
        note = f"{_packages(environment)}; the wheel has {disk_mb(wheel):.1f} MB"
        yield summary("virtual environment of the wheel", "MB", [disk_mb(environment)], note)


def _run(folder: Path, *command: object) -> float:
    """The seconds that a command takes. Raises `NotRunning` with its last line if it fails."""
    began = time.perf_counter()
    arguments = [str(part) for part in command]
    with subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, errors = process.communicate()
        finally:
            stop(process)
    if process.returncode:
        raise NotRunning(f"{command[0]}: {last_line(errors)}")
    return time.perf_counter() - began


def disk_mb(path: Path) -> float:
    """MB of 1e6 bytes on the disk, as `du` counts them: a file with several links counts once."""
    command = ["du", "--summarize", "--block-size=1", str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) / 1e6


def _packages(environment: Path) -> str:
    (packages,) = environment.glob("lib/python*/site-packages")
    count = len(list(packages.glob("*.dist-info")))
    sizes = {part.name: disk_mb(part) for part in packages.iterdir()}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]
    return f"{count} packages; {', '.join(f'{name} {sizes[name]:.0f} MB' for name in largest)}"


def _image(checkout: Checkout) -> Iterator[Row]:
    name = "image `embedded`, unpacked"
    if reason := missing():
        yield Unmeasured(name, reason)
        return
    with with_base() as buildah:
        image_mb = _unpacked_mb(buildah, buildah.build(checkout.folder, "embedded"))
        base_mb = _unpacked_mb(buildah, BASE)
    yield summary(name, "MB", [image_mb], f"the base, Debian with Python, has {base_mb:.0f} MB")


def _unpacked_mb(buildah: Buildah, image: str) -> float:
    container = buildah("from", "--pull-never", image)
    return disk_mb(Path(buildah("mount", container)))


def _start(checkout: Checkout) -> Iterator[Row]:
    """The first start reads all files from the disk and does not count."""
    seconds, resident = [], []
    for _ in range(SERVED_ROUNDS + 1):
        began = time.perf_counter()
        with checkout.serving() as gateway:
            seconds.append(time.perf_counter() - began)
            resident.append(memory_mb(gateway.pid)[0])
    yield summary("start, from exec to ready", "s", seconds[1:], "files warm")
    yield summary("memory when ready, RSS", "MB", resident[1:], "no request yet")


def _memory(checkout: Checkout, soak_requests: int) -> Iterator[Row]:
    with checkout.serving() as gateway:
        photos = [post(f"{gateway.url}/v1/emotions", jpeg) for jpeg in mixed(SIZES)]
        _send(photos, WARM_UP_REQUESTS)
        samples = [memory_mb(gateway.pid)]
        requests = [0]  # since the warm-up, at each sample
        errors = 0
        for _ in range(SAMPLES):
            errors += sum(_send(photos, soak_requests // SAMPLES).errors.values())
            samples.append(memory_mb(gateway.pid))
            requests.append(requests[-1] + soak_requests // SAMPLES)
    resident, proportional = zip(*samples, strict=True)
    load = f"{requests[-1]} requests of {SIZES} sizes, {CALLERS} callers, {errors} errors"
    yield summary("memory after warm-up, RSS", "MB", resident, load)
    yield summary("memory after warm-up, PSS", "MB", proportional, load)
    yield Figure(
        "memory's slope, PSS",
        "MB per 1,000 requests",
        _slope(requests, proportional),
        *_slope_range(requests, proportional),
        "a line through all samples; min and max: lines through each fifth of the samples",
    )


def _send(photos: list[Request], count: int) -> Outcome:
    rounds = (photo for _ in range(count) for photo in photos)
    return callers(CALLERS, islice(rounds, count))


def _slope(requests: list[int], mb: tuple[float, ...]) -> float:
    """MB per 1,000 requests."""
    return 1e3 * float(np.polyfit(requests, mb, 1)[0])


def _slope_range(requests: list[int], mb: tuple[float, ...]) -> tuple[float, float]:
    """Min and max of the slopes of each fifth of the samples."""
    step = SAMPLES // 5
    slopes = [_slope(requests[at : at + step + 1], mb[at : at + step + 1]) for at in range(0, SAMPLES, step)]
    return min(slopes), max(slopes)
