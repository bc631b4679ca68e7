"""Callers that send the traffic, some of them slowly or with aborts, and check every answer."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.load import ANSWER_LIMIT_S, Answer, Connection, answer_from, read_answer
from tests.soak.traffic import Case

SLOW_PIECES, SLOW_PAUSE_S = 10, 0.1
MAX_STAY_S = 0.15  # of a caller that hangs up; some answers arrive before


@dataclass
class Record:
    """The number of requests by kind, and their answers."""

    sent: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[float, float]] = field(default_factory=list)  # time and latency, of raw photos only
    unexpected: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.sent.total()


async def caller(traffic: Iterator[Case], record: Record, ends_at_s: float, seed: int) -> None:
    """Send one request after the other, until `time.perf_counter()` reaches `ends_at_s`."""
    generator = random.Random(seed)
    kept = Connection()
    try:
        while time.perf_counter() < ends_at_s:
            case = next(traffic)
            record.sent[case.kind] += 1
            if case.manner == "whole":
                connection = Connection() if case.fresh else kept
                answer = await connection.send(case.request)
                if case.fresh:
                    connection.close()
                if case.kind == "photo, raw":
                    record.answers.append((answer.at_s, answer.latency_s))
                check_answer(case, answer, record)
            elif case.manner == "slowly":
                check_answer(case, await send_slowly(case), record)
            else:
                await send_and_hang_up(case, generator)
    finally:
        kept.close()


def check_answer(case: Case, answer: Answer, record: Record) -> None:
    """Record an unexpected status or number of faces."""
    status = answer.error or "200"
    if status != case.status:
        record.unexpected.append(f"{case.kind}: {status} instead of {case.status}")
        return
    if case.faces is None:
        return
    body = json.loads(answer.body)
    results = [item.get("result") for item in body["results"]] if "results" in body else [body]
    found = tuple(result and len(result["faces"]) for result in results)
    if found != case.faces:
        record.unexpected.append(f"{case.kind}: {found} faces instead of {case.faces}")


async def send_slowly(case: Case) -> Answer:
    """Send the request in pieces, as over a slow network."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(case.request.host, case.request.port)
    try:
        data = case.request.data
        step = len(data) // SLOW_PIECES + 1
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await asyncio.sleep(SLOW_PAUSE_S)
        async with asyncio.timeout(ANSWER_LIMIT_S):
            return answer_from(*await read_answer(reader), started)
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        return Answer(0.0, type(error).__name__)
    finally:
        writer.close()


async def send_and_hang_up(case: Case, generator: random.Random) -> None:
    """Hang up before the request is complete, or before the answer; half of the time with a reset (RST)."""
    _, writer = await asyncio.open_connection(case.request.host, case.request.port)
    data = case.request.data
    writer.write(data[: generator.randrange(len(data))] if case.manner == "cut" else data)
    await asyncio.sleep(generator.uniform(0, MAX_STAY_S))
    if generator.random() < 0.5:
        linger = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
