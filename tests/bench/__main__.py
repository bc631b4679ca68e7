"""`make bench`: where the time of a request goes, as medians of several rounds, and ratios within one run.

Writes a Markdown table to standard output; docs/explanation/performance.md tells how to read it.
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
from tests.bench.stages import stages
from tests.bench.stream import stream
from tests.bench.throughput import scaling, throughput
from tests.bench.triton import gateway_overhead
from tests.bench.versus import versus

ROOT = Path(__file__).parents[2]
COMPARISONS = ("versus", "answers")
VECTORS = {"AVX-512": "avx512f", "AVX2": "avx2"}  # widest first

Rows = Callable[[], Iterator[Row]]


def main() -> None:
    bound_heap()  # for what is measured in this process, as in the gateway
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        help="some of stages networks service footprint predict stream overload peers triton, by default all "
        "of these; versus and answers compare this checkout with --other",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw `service` and `peers` to this PNG")
    parser.add_argument("--soak", type=int, default=2_000, help="requests while memory is watched")
    parser.add_argument("--other", type=Path, help="another checkout with its own .venv; default: this one")
    parser.add_argument("--photos", type=Path, help="a photo, or a folder of photos, for versus and answers")
    for option, whose in (("--set", "this checkout"), ("--set-other", "the other one")):
        parser.add_argument(
            option,
            action="append",
            default=[],
            type=setting,
            metavar="NAME=VALUE",
            help=f"a setting for the gateway of {whose}, more than once for several",
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
    photos = read(arguments.photos) if arguments.photos else {}
    parts: dict[str, tuple[Rows, ...]] = {
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
        "overload": (overload,),
        "peers": (peers,),
        "triton": (gateway_overhead,),
        "versus": (partial(versus, this, other, photos),),
        "answers": (partial(answers, this, other, photos or scenes()),),
    }
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(parts)}")

    # Stopped halfway, it must not leave its servers running: they end where their blocks end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    print(
        f"ONNX Runtime {version('onnxruntime')}, {platform.machine()} with {widest_vectors()}, "
        f"{len(os.sched_getaffinity(0))} cores; median, min and max of {ROUNDS} rounds, "
        f"and of {SERVED_ROUNDS} where a server was asked\n"
    )
    print("| what | median | min | max | |\n| --- | --- | --- | --- | --- |")
    figures: list[Row] = []
    for part in arguments.parts or (part for part in parts if part not in COMPARISONS):
        for figure in chain.from_iterable(measured(part, figures_of) for figures_of in parts[part]):
            figures.append(figure)
            print(row(figure), flush=True)
            # Written each time: a long run that breaks off has told what it found.
            if arguments.json:
                arguments.json.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n")
    if arguments.plot:
        draw([figure for figure in figures if isinstance(figure, Figure)], arguments.plot)


def setting(text: str) -> tuple[str, str]:
    """Name and value of `EXPRESSNET_X=Y`."""
    name, equals, value = text.partition("=")
    if not (name.startswith(PREFIX) and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not like {PREFIX}PROCESSES=2")
    return name, value


def read(photos: Path) -> dict[str, bytes]:
    """By their names."""
    paths = sorted(path for path in photos.iterdir() if path.is_file()) if photos.is_dir() else [photos]
    return {path.name: path.read_bytes() for path in paths}


def widest_vectors() -> str:
    """The instructions that decide how fast the networks run."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return next((name for name, flag in VECTORS.items() if flag in flags), "neither AVX-512 nor AVX2")


def measured(part: str, figures_of: Rows) -> Iterator[Row]:
    """What breaks off one measurement must not cost the others, nor be hidden by them."""
    try:
        yield from figures_of()
    except Exception as error:
        traceback.print_exc()
        yield Unmeasured(f"{part}: the rest", f"{type(error).__name__}: {error}")


def row(figure: Row) -> str:
    if isinstance(figure, Unmeasured):
        return f"| {figure.name} | not measured | | | {figure.reason} |"
    if isinstance(figure, Remark):
        return f"| {figure.name} | | | | {figure.text} |"
    return (
        f"| {figure.name} | {figure.median:.2f} {figure.unit} "
        f"| {figure.least:.2f} | {figure.most:.2f} | {figure.note} |"
    )


if __name__ == "__main__":
    main()
