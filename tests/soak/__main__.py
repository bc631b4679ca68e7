"""`make soak`: mixed traffic with aborts and garbage, and the state of the process under it.

Prints a Markdown table, and exits with 1 if a bound is broken. docs/explanation/reliability.md explains it.
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
from tests.soak.traffic import Case, Traffic
from tests.soak.watch import Sample, Watch, cpu_per_request_ms, sample, slope
from tests.system.conftest import Process, running

CALLERS_PER_CORE = 3
WARM_UP_SHARE = 0.2  # of the time; memory and threads have bounds after the warm-up only
SAMPLES = 100
# In less time the heaps are still filling, so memory and CPU time have no bounds.
MIN_BOUNDED_MINUTES = 10
MAX_GROWTH_MB_PER_HOUR = 50.0
MAX_CPU_TIME_RATIO = 1.3
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)  # max threads of asyncio.to_thread


@dataclass(frozen=True)
class Row:
    """One finding and its bound. Without a bound, `kept` is None."""

    name: str
    found: str
    bound: str = ""
    kept: bool | None = None


def soak(minutes: float, seed: int = 0) -> list[Row]:
    """Start a service, send traffic for `minutes`, and check the service during and after the load."""
    # The limits are wide, so that no request is refused, and no request times out on a slow machine.
    with running(timeout_s=60, max_images_per_worker=1000) as gateway:
        pid = gateway.process.pid
        record = Record()
        watch = Watch(pid, lambda: record.total, minutes * 60 / SAMPLES)
        traffic = iter(Traffic(gateway.url, seed))
        idle = sample(pid, 0)
        run(_load(traffic, record, watch, minutes * 60))
        rows = [*_answers(record), *_latency(record)]
        rows += [*_process(idle, watch.samples, minutes), *_after_load(gateway, idle)]
        code = gateway.stop()
        log = "".join(gateway.log)
        rows.append(Row("exit code after SIGTERM", str(code), "0", code == 0))
        errors = sum('"level": "error"' in line for line in gateway.log) + log.count("Traceback")
        rows.append(Row("errors and tracebacks in the log", str(errors), "0", errors == 0))
    return rows


async def _load(traffic: Iterator[Case], record: Record, watch: Watch, seconds: float) -> None:
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
    unexpected = Counter(record.unexpected)
    yield Row(
        "answers lost or not as expected",
        f"{len(record.unexpected)}"
        + "".join(f"; {count} x {kind}" for kind, count in unexpected.most_common(5)),
        "0",
        not record.unexpected,
    )


def _latency(record: Record) -> Iterator[Row]:
    """Latency has no bound, because it doubles when the machine has other work. CPU time does not."""
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
    bounded = minutes >= MIN_BOUNDED_MINUTES
    no_bound = "" if bounded else f"none in less than {MIN_BOUNDED_MINUTES} minutes"
    fifth = max(2, len(samples) // 5)
    before_ms, after_ms = cpu_per_request_ms(samples[:fifth]), cpu_per_request_ms(samples[-fifth:])
    yield Row(
        "CPU time of a request, first and last fifth of the time",
        f"{before_ms:.1f} ms, {after_ms:.1f} ms",
        no_bound or f"at most {MAX_CPU_TIME_RATIO} x",
        after_ms <= MAX_CPU_TIME_RATIO * before_ms if bounded else None,
    )
    per_hour = slope([each.at_s / 3600 for each in warm], [each.pss_mb for each in warm])
    yield Row(
        "PSS after warm-up, line through all samples",
        f"{per_hour:+.1f} MB an hour",
        no_bound or f"at most {MAX_GROWTH_MB_PER_HOUR:+.0f}",
        per_hour <= MAX_GROWTH_MB_PER_HOUR if bounded else None,
    )
    per_1000 = slope([each.requests / 1e3 for each in warm], [each.pss_mb for each in warm])
    yield Row("PSS after warm-up, by requests", f"{per_1000:+.2f} MB per 1,000 requests")
    for name in ("rss_mb", "pss_mb"):
        values = [getattr(each, name) for each in warm]
        yield Row(
            f"{name[:3].upper()}: idle, start, end, max",
            f"{getattr(idle, name):.0f}, {values[0]:.0f}, {values[-1]:.0f}, {max(values):.0f} MB",
        )
    threads = [each.threads for each in warm]
    # The threads of the event loop's pool start one by one, when no idle thread can take new work.
    limit = max(threads[0], idle.threads + POOL_THREADS)
    yield Row(
        "threads: idle, start, end, max",
        f"{idle.threads}, {threads[0]}, {threads[-1]}, {max(threads)}",
        f"at most {limit}",
        max(threads) <= limit,
    )


def _after_load(gateway: Process, idle: Sample) -> Iterator[Row]:
    """The state of the gateway after all callers have left."""
    for name in ("expressnet_requests_in_flight", "expressnet_queue_depth_faces"):
        with contextlib.suppress(AssertionError):
            eventually(lambda name=name: gateway.metric(name) == 0)  # type: ignore[misc]
        value = gateway.metric(name)
        yield Row(f"`{name}` at the end", f"{value:.0f}", "0", value == 0)
    # One more than idle: the client that reads the metrics may have a connection.
    limit = idle.descriptors + 1
    with contextlib.suppress(AssertionError):
        eventually(lambda: sample(gateway.process.pid, 0).descriptors <= limit)
    descriptors = sample(gateway.process.pid, 0).descriptors
    yield Row(
        "file descriptors: idle, at the end",
        f"{idle.descriptors}, {descriptors}",
        f"at most {limit}",
        descriptors <= limit,
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
    parser.add_argument("--minutes", type=float, default=5.0, help="minutes of traffic, 5 by default")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mixture")
    parser.add_argument("--json", type=Path, help="also write the findings to this file")
    arguments = parser.parse_args()
    rows = soak(arguments.minutes, arguments.seed)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    sys.exit(0 if all(row.kept is not False for row in rows) else 1)


if __name__ == "__main__":
    main()
