"""Runs the pipeline on one image and shapes the answer: single faces, or one group."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from service.api.schemas import EmotionQuery, GroupImage, ImageAnswer
from service.api.shaping import shape_group, shape_image
from service.core.deadline import Deadline
from service.core.errors import InvalidRequest
from service.core.seen import Seen, SeenGroup
from service.core.timings import Timings
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import Pipeline
from service.telemetry.metrics import Metrics


class Content(NamedTuple):
    """The answer to one image, and the pipeline's result behind it."""

    model: ImageAnswer | GroupImage
    seen: Seen | SeenGroup


AnswerImage = Callable[[bytes, EmotionQuery, Deadline, Timings], Coroutine[Any, Any, Content]]


def answer_with(pipeline: Pipeline | GroupPipeline, metrics: Metrics) -> AnswerImage:
    """Return a function that answers one image and counts its faces; it raises the pipeline's errors."""
    if isinstance(pipeline, GroupPipeline):
        return _groups(pipeline, metrics)
    return _faces(pipeline, metrics)


def _faces(pipeline: Pipeline, metrics: Metrics) -> AnswerImage:
    async def answer(data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings) -> Content:
        seen = await pipeline.run(data, query.to_pipeline(), deadline, timings)
        metrics.faces(seen)
        return Content(shape_image(seen, query), seen)

    return answer


def _groups(pipeline: GroupPipeline, metrics: Metrics) -> AnswerImage:
    async def answer(data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings) -> Content:
        if query != EmotionQuery():
            raise InvalidRequest("group mode takes no parameters of faces")
        seen = await pipeline.run(data, deadline, timings)
        metrics.group(seen)
        return Content(shape_group(seen), seen)

    return answer
