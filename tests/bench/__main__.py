"""`make bench`: the time of each part of a request, as medians over rounds, and ratios within one run.

Writes a Markdown table to standard output. docs/explanation/performance.md explains the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from service.process.memory import bound_heap
from service.settings import PREFIX
from tests.bench.answers import answers
from tests.bench.checkout import Checkout
from tests.bench.figures import ROUNDS, SERVED_ROUNDS, Figure, Remark, Row, Unmeasured
from tests.bench.footprint import footprint
from tests.bench.latency import latency
from tests.bench.networks import networks
from tests.bench.overload import overload
from tests.bench.peers import peers
from tests.bench.photos import scenes
from tests.bench.plot import draw
from tests.bench.predict import predict
from tests.bench.recording import recording
from tests.bench.stages import stages
from tests.bench.stream import stream
from tests.bench.throughput import scaling, throughput
from tests.bench.triton import gateway_overhead
from tests.bench.versus import versus

ROOT = Path(__file__).parents[2]
COMPARISONS = ("versus", "answers")
VECTORS = {"AVX-512": "avx512f", "AVX2": "avx2"}  # widest first

Measurement = Callable[[], Iterator[Row]]


def main() -> None:
    bound_heap()  # as in the gateway, because some parts run in this process
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        help="parts to run: stages networks service footprint predict stream recording overload peers "
        "triton; all of these by default. versus and answers compare this checkout with --other",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw `service` and `peers` to this PNG")
    parser.add_argument("--soak", type=int, default=2_000, help="requests while memory is measured")
    parser.add_argument("--other", type=Path, help="another checkout with its own .venv; default: this one")
    parser.add_argument(
        "--photos", type=Path, help="a photo, or a folder of photos, for versus, answers and recording"
    )
    parser.add_argument("--minutes", type=float, default=5, help="length of the video of recording")
    for option, checkout in (("--set", "this checkout"), ("--set-other", "the other checkout")):
        parser.add_argument(
            option,
            action="append",
            default=[],
            type=setting,
            metavar="NAME=VALUE",
            help=f"a setting for the gateway of {checkout}; repeat the option for more settings",
        )
    arguments = parser.parse_args()
    programs = Path(sys.executable).parent
    this = Checkout("this", ROOT, programs, dict(arguments.set))
    folder = (arguments.other or ROOT).resolve()
    other = Checkout(
        "other",
        folder,
        folder / ".venv" / "bin" if arguments.other else programs,
        dict(arguments.set_other),
    )
    photos = read_photos(arguments.photos) if arguments.photos else {}
    parts: dict[str, tuple[Measurement, ...]] = {
        "stages": (stages,),
        "networks": (networks,),
        "service": (latency, throughput, scaling),
        "footprint": tuple(
            part
            for side in ((this, other) if arguments.other else (this,))
            for part in footprint(side, arguments.soak)
        ),
        "predict": (predict,),
        "stream": (stream,),
        "recording": (partial(recording, photos, arguments.minutes),),
        "overload": (overload,),
        "peers": (peers,),
        "triton": (gateway_overhead,),
        "versus": (partial(versus, this, other, photos),),
        "answers": (partial(answers, this, other, photos or scenes()),),
    }
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(parts)}")

    # SIGTERM raises SystemExit: all `with` blocks end, and stop the servers that they started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    print(
        f"ONNX Runtime {version('onnxruntime')}, {platform.machine()} with {widest_vectors()}, "
        f"{len(os.sched_getaffinity(0))} cores; median, min and max of {ROUNDS} rounds, "
        f"or of {SERVED_ROUNDS} rounds for a server\n"
    )
    print("| what | median | min | max | |\n| --- | --- | --- | --- | --- |")
    rows: list[Row] = []
    for part in arguments.parts or (part for part in parts if part not in COMPARISONS):
        for row in chain.from_iterable(measured_rows(part, measurement) for measurement in parts[part]):
            rows.append(row)
            print(table_row(row), flush=True)
            # Written after each row, so that a run that breaks off keeps its results.
            if arguments.json:
                arguments.json.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    if arguments.plot:
        draw([row for row in rows if isinstance(row, Figure)], arguments.plot)


def setting(text: str) -> tuple[str, str]:
    """The name and the value of `EXPRESSNET_X=Y`."""
    name, equals, value = text.partition("=")
    if not (name.startswith(PREFIX) and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not like {PREFIX}PROCESSES=2")
    return name, value


def read_photos(photos: Path) -> dict[str, bytes]:
    """The bytes of one photo, or of all photos of a folder, by file name."""
    paths = sorted(path for path in photos.iterdir() if path.is_file()) if photos.is_dir() else [photos]
    return {path.name: path.read_bytes() for path in paths}


def widest_vectors() -> str:
    """The widest vector instructions of this CPU. They decide how fast the networks run."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return next((name for name, flag in VECTORS.items() if flag in flags), "neither AVX-512 nor AVX2")


def measured_rows(part: str, measurement: Measurement) -> Iterator[Row]:
    """The rows of a measurement. An exception is printed and becomes a row; the other parts still run."""
    try:
        yield from measurement()
    except Exception as error:
        traceback.print_exc()
        yield Unmeasured(f"{part}: remaining rows", f"{type(error).__name__}: {error}")


def table_row(row: Row) -> str:
    if isinstance(row, Unmeasured):
        return f"| {row.name} | not measured | | | {row.reason} |"
    if isinstance(row, Remark):
        return f"| {row.name} | | | | {row.text} |"
    return f"| {row.name} | {row.median:.2f} {row.unit} | {row.min:.2f} | {row.max:.2f} | {row.note} |"


if __name__ == "__main__":
    main()
