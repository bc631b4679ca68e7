"""`make bench`: where the time of a request goes, as medians of several rounds, and ratios within one run.

Writes a Markdown table to standard output; docs/performance.md tells how to read it.
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
from itertools import chain
from pathlib import Path

import torch

from tests.bench.figures import ROUNDS, SERVED_ROUNDS, Figure, Unmeasured
from tests.bench.latency import latency
from tests.bench.networks import networks
from tests.bench.overload import overload
from tests.bench.peers import peers
from tests.bench.plot import draw
from tests.bench.predict import predict
from tests.bench.process import memory, start_up
from tests.bench.stages import stages
from tests.bench.stream import stream
from tests.bench.throughput import scaling, throughput
from tests.bench.triton import gateway_overhead

Figures = Callable[[], Iterator[Figure | Unmeasured]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        help="some of stages networks service predict stream overload peers triton; default: all",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw `service` and `peers` to this PNG")
    parser.add_argument("--soak", type=int, default=2_000, help="requests while memory is watched")
    arguments = parser.parse_args()
    parts: dict[str, tuple[Figures, ...]] = {
        "stages": (stages,),
        "networks": (networks,),
        "service": (latency, throughput, scaling, start_up, partial(memory, arguments.soak)),
        "predict": (predict,),
        "stream": (stream,),
        "overload": (overload,),
        "peers": (peers,),
        "triton": (gateway_overhead,),
    }
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(parts)}")

    # Stopped halfway, it must not leave its servers running: they end where their blocks end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    print(
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores; median, least and most "
        f"of {ROUNDS} rounds, and of {SERVED_ROUNDS} where a server was asked\n"
    )
    print("| what | median | least | most | |\n| --- | --- | --- | --- | --- |")
    figures: list[Figure | Unmeasured] = []
    for part in arguments.parts or parts:
        for figure in chain.from_iterable(measured(part, figures_of) for figures_of in parts[part]):
            figures.append(figure)
            print(row(figure), flush=True)
            # Written each time: a long run that breaks off has told what it found.
            if arguments.json:
                arguments.json.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n")
    if arguments.plot:
        draw([figure for figure in figures if isinstance(figure, Figure)], arguments.plot)


def measured(part: str, figures_of: Figures) -> Iterator[Figure | Unmeasured]:
    """What breaks off one measurement must not cost the others, nor be hidden by them."""
    try:
        yield from figures_of()
    except Exception as error:
        traceback.print_exc()
        yield Unmeasured(f"{part}: the rest", f"{type(error).__name__}: {error}")


def row(figure: Figure | Unmeasured) -> str:
    if isinstance(figure, Unmeasured):
        return f"| {figure.name} | not measured | | | {figure.reason} |"
    return (
        f"| {figure.name} | {figure.median:.2f} {figure.unit} "
        f"| {figure.least:.2f} | {figure.most:.2f} | {figure.note} |"
    )


if __name__ == "__main__":
    main()
