"""`python -m tests.hostile`: the whole corpus to a real gateway. docs/notes/hostile-images.md has its table.

`--runs 2` sends it twice: memory that is lost with each run shows in the second.
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
    """The minimum of six seconds: what was freed has had time to go back."""
    found = []
    for _ in range(12):
        time.sleep(0.5)
        found.append(process.memory_info().rss)
    return min(found)


def merged(tallies: Iterable[tuple[str, Tally]]) -> Tally:
    whole = Tally()
    for name, tally in tallies:
        whole.tried += tally.tried
        whole.answers.update(tally.answers)
        whole.slowest_s = max(whole.slowest_s, tally.slowest_s)
        whole.peak_bytes = max(whole.peak_bytes, tally.peak_bytes)
        whole.lost += tally.lost
        whole.wrong += [f"{name}: {wrong}" for wrong in tally.wrong]
    return whole


def row(kind: str, tally: Tally) -> str:
    answers = ", ".join(f"{answer} ({count})" for answer, count in sorted(tally.answers.items()))
    return f"| {kind} | {tally.tried} | {answers} | {tally.slowest_s:.1f} s | {tally.lost} |"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=1, help="how often the corpus is sent")
    options.add_argument("--every", type=int, default=1, help="send only each n-th of its files")
    chosen = options.parse_args()
    good, large = encoded(photo(480)), encoded(photo(3400))
    failed = False
    # Bombs may take seconds each: the deadline is long enough that the budget decides.
    with running(timeout_s=60) as gateway:
        process = psutil.Process(gateway.process.pid)
        # What ordinary traffic keeps, photos of 12 megapixels among it, is no growth.
        for number in range(200):
            assert gateway.post(large if number % 10 == 0 else good).status_code == 200
        before, handles, threads = settled_rss(process), process.num_fds(), process.num_threads()
        for _ in range(chosen.runs):
            files = (item for number, item in enumerate(corpus()) if number % chosen.every == 0)
            tallies = send(gateway.url, files, process)
            eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 0)
            assert gateway.post(good).status_code == 200
            after = settled_rss(process)
            kinds = Counter(name.partition(":")[0].rpartition(" ")[2] for name in tallies)
            print("| images | tried | answers | slowest | lost |")
            print("| --- | ---: | --- | ---: | ---: |")
            for kind in kinds:
                chosen_tallies = [
                    (name, tally)
                    for name, tally in tallies.items()
                    if name.partition(":")[0].rpartition(" ")[2] == kind
                ]
                print(
                    row({"bomb": "bombs", "fields": "extreme fields"}.get(kind, kind), merged(chosen_tallies))
                )
            whole = merged(tallies.items())
            print(row("all", whole))
            print(
                f"\nMemory {before / MB:.0f} MB before, at most {whole.peak_bytes / MB:.0f} MB after an "
                f"answer, {after / MB:.0f} MB afterwards; descriptors {handles} and {process.num_fds()}, "
                f"threads {threads} and {process.num_threads()}; images given up: "
                f"{gateway.metric('expressnet_abandoned_images_total'):.0f}.\n",
                flush=True,
            )
            for wrong in whole.wrong[:20]:
                print("wrong:", wrong)
            slow = sorted(tallies.items(), key=lambda item: -item[1].slowest_s)[:5]
            print(
                "slowest:",
                ", ".join(f"{name} {tally.slowest_s:.1f} s" for name, tally in slow),
                file=sys.stderr,
            )
            failed |= bool(whole.wrong) or after > before + 50 * MB
        failed |= gateway.stop() != 0 or any("Traceback" in line for line in gateway.log)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
