"""Callers that send the traffic, patient and rude ones, and judge every answer."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.load import ANSWER_LIMIT_S, Answer, Connection, answered, read_answer
from tests.soak.traffic import Sent

SLOW_PIECES, SLOW_PAUSE_S = 10, 0.1
LONGEST_STAY_S = 0.15  # of a caller that leaves; some are answered before


@dataclass
class Record:
    """What was sent and what came back."""

    sent: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[float, float]] = field(default_factory=list)  # when and how long, of raw photos
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.sent.total()


async def caller(traffic: Iterator[Sent], record: Record, ends_at_s: float, seed: int) -> None:
    """One after the other, until `time.perf_counter()` reaches `ends_at_s`."""
    chosen = random.Random(seed)
    kept = Connection()
    try:
        while time.perf_counter() < ends_at_s:
            sent = next(traffic)
            record.sent[sent.kind] += 1
            if sent.manner == "whole":
                connection = Connection() if sent.fresh else kept
                answer = await connection.ask(sent.request)
                if sent.fresh:
                    connection.close()
                if sent.kind == "photo, raw":
                    record.answers.append((answer.at_s, answer.latency_s))
                judge(sent, answer, record)
            elif sent.manner == "slowly":
                judge(sent, await slowly(sent), record)
            else:
                await rudely(sent, chosen)
    finally:
        kept.close()


def judge(sent: Sent, answer: Answer, record: Record) -> None:
    status = answer.error or "200"
    if status != sent.status:
        record.wrong.append(f"{sent.kind}: {status} instead of {sent.status}")
        return
    if sent.faces is None:
        return
    body = json.loads(answer.body)
    results = [item.get("result") for item in body["results"]] if "results" in body else [body]
    found = tuple(result and len(result["faces"]) for result in results)
    if found != sent.faces:
        record.wrong.append(f"{sent.kind}: {found} faces instead of {sent.faces}")


async def slowly(sent: Sent) -> Answer:
    """The body comes in pieces, as over a bad line."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(sent.request.host, sent.request.port)
    try:
        data = sent.request.data
        step = len(data) // SLOW_PIECES + 1
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await asyncio.sleep(SLOW_PAUSE_S)
        async with asyncio.timeout(ANSWER_LIMIT_S):
            return answered(*await read_answer(reader), started)
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        return Answer(0.0, type(error).__name__)
    finally:
        writer.close()


async def rudely(sent: Sent, chosen: random.Random) -> None:
    """Hang up while sending or while waiting; half of the time without a word (RST)."""
    _, writer = await asyncio.open_connection(sent.request.host, sent.request.port)
    data = sent.request.data
    writer.write(data[: chosen.randrange(len(data))] if sent.manner == "cut" else data)
    await asyncio.sleep(chosen.uniform(0, LONGEST_STAY_S))
    if chosen.random() < 0.5:
        linger = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
