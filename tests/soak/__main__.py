"""`make soak`: mixed traffic with aborts and garbage, and what the process becomes under it.

Prints a Markdown table; exits 1 if a bound was broken. docs/explanation/reliability.md tells how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.load import Answer, latency_ms, run
from tests.conftest import eventually
from tests.soak.callers import Record, caller
from tests.soak.traffic import Sent, Traffic
from tests.soak.watch import Sample, Watch, cpu_per_request_ms, sample, slope
from tests.system.conftest import Process, running

CALLERS_PER_CORE = 3
WARM_UP_SHARE = 0.2  # of the time, after which memory and threads are held to their bounds
SAMPLES = 100
# Shorter, and the heaps are still filling.
LONG_MINUTES = 10
MOST_GROWTH_MB_PER_HOUR = 50.0
MOST_DRIFT = 1.3
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)  # of asyncio.to_thread


@dataclass(frozen=True)
class Row:
    """One finding; `bound` is what it is held to, if it is."""

    name: str
    found: str
    bound: str = ""
    kept: bool | None = None


def soak(minutes: float, seed: int = 0) -> list[Row]:
    """Start a service, send it traffic for so long, and look at what is left of it."""
    # Wide limits: no caller may be refused, and on a slow machine none may be late.
    with running(timeout_s=60, max_images_per_worker=1000) as gateway:
        pid = gateway.process.pid
        record = Record()
        watch = Watch(pid, lambda: record.total, minutes * 60 / SAMPLES)
        traffic = iter(Traffic(gateway.url, seed))
        idle = sample(pid, 0)
        run(_load(traffic, record, watch, minutes * 60))
        rows = [*_answers(record), *_latency(record)]
        rows += [*_process(idle, watch.samples, minutes), *_left_behind(gateway, idle)]
        code = gateway.stop()
        log = "".join(gateway.log)
        rows.append(Row("exit code after SIGTERM", str(code), "0", code == 0))
        bad = sum('"level": "error"' in line for line in gateway.log) + log.count("Traceback")
        rows.append(Row("errors and tracebacks in the log", str(bad), "0", bad == 0))
    return rows


async def _load(traffic: Iterator[Sent], record: Record, watch: Watch, seconds: float) -> None:
    ends_at_s = time.perf_counter() + seconds
    watching = asyncio.create_task(watch.run())
    callers = CALLERS_PER_CORE * len(os.sched_getaffinity(0))
    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(traffic, record, ends_at_s, number))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


def _answers(record: Record) -> Iterator[Row]:
    kinds = "; ".join(f"{count:,} {kind}" for kind, count in record.sent.most_common())
    yield Row("requests", f"{record.total:,}: {kinds}")
    wrong = Counter(record.wrong)
    yield Row(
        "answers lost or not as expected",
        f"{len(record.wrong)}" + "".join(f"; {count} x {kind}" for kind, count in wrong.most_common(5)),
        "0",
        not record.wrong,
    )


def _latency(record: Record) -> Iterator[Row]:
    """Not judged: it doubles when the machine has other work. What the service itself takes does not."""
    began, ended = record.answers[0][0], record.answers[-1][0]
    fifth = (ended - began) / 5
    start = [Answer(latency) for at, latency in record.answers if at < began + fifth]
    end = [Answer(latency) for at, latency in record.answers if at > ended - fifth]
    for share in (0.5, 0.99):
        before, after = latency_ms(start, share), latency_ms(end, share)
        yield Row(
            f"p{share * 100:.0f} of raw photos, first and last fifth of the time",
            f"{before:.0f} ms, {after:.0f} ms",
        )


def _process(idle: Sample, samples: list[Sample], minutes: float) -> Iterator[Row]:
    warm = samples[int(len(samples) * WARM_UP_SHARE) :]
    judged = minutes >= LONG_MINUTES
    too_short = "" if judged else f"not judged in less than {LONG_MINUTES} minutes"
    fifth = max(2, len(samples) // 5)
    before_ms, after_ms = cpu_per_request_ms(samples[:fifth]), cpu_per_request_ms(samples[-fifth:])
    yield Row(
        "CPU time of a request, first and last fifth of the time",
        f"{before_ms:.1f} ms, {after_ms:.1f} ms",
        too_short or f"at most {MOST_DRIFT} x",
        after_ms <= MOST_DRIFT * before_ms if judged else None,
    )
    per_hour = slope([each.at_s / 3600 for each in warm], [each.pss_mb for each in warm])
    yield Row(
        "PSS after warm-up, line through all samples",
        f"{per_hour:+.1f} MB an hour",
        too_short or f"at most {MOST_GROWTH_MB_PER_HOUR:+.0f}",
        per_hour <= MOST_GROWTH_MB_PER_HOUR if judged else None,
    )
    per_1000 = slope([each.requests / 1e3 for each in warm], [each.pss_mb for each in warm])
    yield Row("the same by requests", f"{per_1000:+.2f} MB per 1,000 requests")
    for name in ("rss_mb", "pss_mb"):
        values = [getattr(each, name) for each in warm]
        yield Row(
            f"{name[:3].upper()}: idle, start, end, max",
            f"{getattr(idle, name):.0f}, {values[0]:.0f}, {values[-1]:.0f}, {max(values):.0f} MB",
        )
    threads = [each.threads for each in warm]
    # Those of the event loop's pool start one by one, when there is work for one more.
    limit = threads[0] if judged else max(threads[0], idle.threads + POOL_THREADS)
    yield Row(
        "threads: idle, start, end, max",
        f"{idle.threads}, {threads[0]}, {threads[-1]}, {max(threads)}",
        f"at most {limit}",
        max(threads) <= limit,
    )


def _left_behind(gateway: Process, idle: Sample) -> Iterator[Row]:
    """Once all callers are gone."""
    for name in ("expressnet_requests_in_flight", "expressnet_queue_depth_faces"):
        with contextlib.suppress(AssertionError):
            eventually(lambda name=name: gateway.metric(name) == 0)  # type: ignore[misc]
        left = gateway.metric(name)
        yield Row(f"`{name}` at the end", f"{left:.0f}", "0", left == 0)
    # Of the one client that reads the metrics there may be a connection.
    limit = idle.descriptors + 1
    with contextlib.suppress(AssertionError):
        eventually(lambda: sample(gateway.process.pid, 0).descriptors <= limit)
    left = sample(gateway.process.pid, 0).descriptors
    yield Row(
        "file descriptors: idle, at the end", f"{idle.descriptors}, {left}", f"at most {limit}", left <= limit
    )
    ready = gateway.ready
    yield Row("ready at the end", "yes" if ready else "no", "yes", ready)


def table(rows: list[Row]) -> str:
    lines = ["| what | found | bound | kept |", "| --- | --- | --- | --- |"]
    for row in rows:
        kept = {True: "yes", False: "**no**", None: ""}[row.kept]
        lines.append(f"| {row.name} | {row.found} | {row.bound} | {kept} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long traffic is sent; 5 if absent")
    parser.add_argument("--seed", type=int, default=0, help="of the mixture")
    parser.add_argument("--json", type=Path, help="also write the findings to this file")
    arguments = parser.parse_args()
    rows = soak(arguments.minutes, arguments.seed)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    sys.exit(0 if all(row.kept is not False for row in rows) else 1)


if __name__ == "__main__":
    main()
