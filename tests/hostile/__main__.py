"""`python -m tests.hostile`: sends the whole corpus to a real gateway and prints the results as a table.

docs/notes/hostile-images.md has the table. With `--runs 2`, a memory leak shows in the second run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable

import psutil

from tests.conftest import encoded, eventually
from tests.hostile.attack import Tally, corpus, send
from tests.hostile.originals import photo
from tests.system.conftest import running

MB = 1e6


def settled_rss(process: psutil.Process) -> int:
    """The minimum within six seconds, so that freed memory has time to return to the system."""
    samples = []
    for _ in range(12):
        time.sleep(0.5)
        samples.append(process.memory_info().rss)
    return min(samples)


def merged(tallies: Iterable[tuple[str, Tally]]) -> Tally:
    total = Tally()
    for name, tally in tallies:
        total.tried += tally.tried
        total.answers.update(tally.answers)
        total.slowest_s = max(total.slowest_s, tally.slowest_s)
        total.peak_bytes = max(total.peak_bytes, tally.peak_bytes)
        total.lost += tally.lost
        total.unexpected += [f"{name}: {answer}" for answer in tally.unexpected]
    return total


def row(kind: str, tally: Tally) -> str:
    answers = ", ".join(f"{answer} ({count})" for answer, count in sorted(tally.answers.items()))
    return f"| {kind} | {tally.tried} | {answers} | {tally.slowest_s:.1f} s | {tally.lost} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="how often the corpus is sent")
    parser.add_argument("--every", type=int, default=1, help="send only every n-th file")
    arguments = parser.parse_args()
    good, large = encoded(photo(480)), encoded(photo(3400))
    failed = False
    # The deadline is so long that the decode budget ends slow bombs.
    with running(timeout_s=60) as gateway:
        process = psutil.Process(gateway.process.pid)
        # Memory that ordinary traffic keeps is no growth. Some of its photos have 12 megapixels.
        for number in range(200):
            assert gateway.post(large if number % 10 == 0 else good).status_code == 200
        before, handles, threads = settled_rss(process), process.num_fds(), process.num_threads()
        for _ in range(arguments.runs):
            files = (item for number, item in enumerate(corpus()) if number % arguments.every == 0)
            tallies = send(gateway.url, files, process)
            eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 0)
            assert gateway.post(good).status_code == 200
            after = settled_rss(process)
            kinds = Counter(name.partition(":")[0].rpartition(" ")[2] for name in tallies)
            print("| images | tried | answers | slowest | lost |")
            print("| --- | ---: | --- | ---: | ---: |")
            for kind in kinds:
                of_kind = [
                    (name, tally)
                    for name, tally in tallies.items()
                    if name.partition(":")[0].rpartition(" ")[2] == kind
                ]
                print(row({"bomb": "bombs", "fields": "extreme fields"}.get(kind, kind), merged(of_kind)))
            total = merged(tallies.items())
            print(row("all", total))
            print(
                f"\nMemory {before / MB:.0f} MB before, at most {total.peak_bytes / MB:.0f} MB after an "
                f"answer, {after / MB:.0f} MB afterwards; descriptors {handles} and {process.num_fds()}, "
                f"threads {threads} and {process.num_threads()}; abandoned images: "
                f"{gateway.metric('expressnet_abandoned_images_total'):.0f}.\n",
                flush=True,
            )
            for answer in total.unexpected[:20]:
                print("unexpected:", answer)
            slow = sorted(tallies.items(), key=lambda item: -item[1].slowest_s)[:5]
            print(
                "slowest:",
                ", ".join(f"{name} {tally.slowest_s:.1f} s" for name, tally in slow),
                file=sys.stderr,
            )
            failed |= bool(total.unexpected) or after > before + 50 * MB
        failed |= gateway.stop() != 0 or any("Traceback" in line for line in gateway.log)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
