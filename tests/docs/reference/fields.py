"""docs/reference/fields.md and manifest.md, from the models of requests, answers and manifests."""

from __future__ import annotations

import json

from pydantic import BaseModel

from service.api.recordings import (
    GroupRecordingQuery,
    GroupRecordingReport,
    RecordingForm,
    RecordingJob,
    RecordingQuery,
    RecordingReport,
    Timeline,
)
from service.api.schemas import (
    BatchAnswer,
    BatchForm,
    EmotionQuery,
    EmotionsAnswer,
    GroupAnswer,
    GroupBatchAnswer,
    ImageForm,
    ImageUpload,
    PhotoQuery,
    Problem,
)
from service.api.sessions import SessionInfo, SessionOptions, SessionReport
from service.api.stream import (
    FrameAnswer,
    FrameProblem,
    GroupFrameAnswer,
    GroupStreamSummary,
    StreamEnd,
    StreamQuery,
    StreamSummary,
)
from service.compliance.deployment import Deployment
from service.core.manifest import ClassifierManifest, Manifest
from service.http.routes.health import Liveness, ReadinessAnswer
from tests.docs.blocks import ROOT
from tests.docs.formatting import as_json
from tests.docs.reference.markdown import codes, fenced, page
from tests.docs.reference.schemas import sections

GROUPS: dict[str, tuple[str, tuple[type[BaseModel], ...]]] = {
    "Requests": (
        "Unknown parameters, fields and keys are errors.",
        (PhotoQuery, EmotionQuery, ImageUpload, ImageForm, BatchForm),
    ),
    "Answers": (
        "Fields that do not apply are absent, and never `null`.",
        (EmotionsAnswer, BatchAnswer, Problem),
    ),
    "Group mode": (
        "With `EXPRESSNET_AGGREGATE_ONLY`.",
        (GroupAnswer, GroupBatchAnswer, GroupFrameAnswer, GroupStreamSummary),
    ),
    "Streams": (
        "Messages of `WS /v1/stream`. [asyncapi.json](../asyncapi.json) has their JSON Schemas.",
        (StreamQuery, StreamEnd, FrameAnswer, FrameProblem, StreamSummary),
    ),
    "Sessions": (
        "`POST /v1/sessions` and `GET /v1/sessions/{id}/report`.",
        (SessionOptions, SessionInfo, SessionReport),
    ),
    "Recordings": (
        "Of `/v1/recordings`.",
        (RecordingQuery, RecordingForm, RecordingJob, Timeline, RecordingReport),
    ),
    "Recordings in group mode": ("", (GroupRecordingQuery, GroupRecordingReport)),
    "Model cards": (
        "`GET /v1/models` answers `models`, a list of cards. A card has the fields of the "
        "[manifest](manifest.md) and `deployment`, which is `null` for the detector.",
        (Deployment,),
    ),
    "Health": ("", (Liveness, ReadinessAnswer)),
}


def fields_page() -> str:
    known: set[str] = set()
    parts = []
    for heading, (sentence, models) in GROUPS.items():
        parts += [f"## {heading}", sentence, *sections(models, known)]
    return page(
        "Fields",
        "Every field of requests, answers and stream messages. [api.md](api.md) shows examples, and "
        "[openapi.json](../openapi.json) has the same as JSON Schemas.",
        *parts,
    )


def manifest_page() -> str:
    needed = [
        name
        for name, field in ClassifierManifest.model_fields.items()
        if field.is_required() and not Manifest.model_fields[name].is_required()
    ]
    path = "model_repository/yunet/manifest.json"
    example = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return page(
        "Manifest",
        "Every field of `manifest.json`. Each model has this file in its folder in the model repository. "
        "`expressnet export` writes it, and `GET /v1/models` shows it.",
        f"The manifest of a classifier must have {codes(needed)}.",
        "## Fields",
        *sections([Manifest], set()),
        "## Example",
        f"`{path}`:",
        fenced("json", as_json(example)),
    )
