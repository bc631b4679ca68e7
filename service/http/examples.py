"""Examples for the API documents: the answers to the photo of docs/reference/api.md."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from service.api.recordings import (
    GroupMinute,
    GroupRecordingReport,
    GroupShares,
    Minute,
    RecordingJob,
    RecordingReport,
    RecordingState,
    Timeline,
    TimelineFrame,
    TimeShares,
)
from service.api.schemas import (
    BatchAnswer,
    BatchItem,
    Box,
    EmotionsAnswer,
    Face,
    Group,
    GroupAnswer,
    GroupBatchAnswer,
    GroupBatchItem,
    GroupImage,
    ImageAnswer,
    ImageSize,
    ModelName,
)
from service.api.sessions import ParticipantShares, SessionBin, SessionInfo, SessionReport, SessionShares
from service.api.shaping import to_problem
from service.api.stream import (
    FrameAnswer,
    FrameProblem,
    GroupFrameAnswer,
    GroupStreamSummary,
    Smoothed,
    StreamSummary,
    TrackedFace,
    TrackSummary,
)
from service.core.errors import InvalidImage
from service.core.manifest import EMOTIONS, Manifest, Training
from service.core.priors import BALANCED
from service.http.problems import EXAMPLE_ID

CLASSIFIER = ModelName(name="expressnet_moe", version="1", prior=BALANCED)
_WHO = {"request_id": EXAMPLE_ID, "model": CLASSIFIER}
_PROBABILITIES = dict(
    zip(
        EMOTIONS,
        (0.001486, 0.996376, 0.000655, 0.000492, 0.000324, 0.000162, 0.000171, 0.000334),
        strict=True,
    )
)
_SIZE = ImageSize(width=512, height=512)
_FACE = Face(
    box=Box(x=180.85, y=70.36, width=89.05, height=105.43),
    detection_confidence=0.9877,
    emotion="happiness",
    confidence=0.996376,
    agreement=10.0,
    verdict="certain",
    probabilities=_PROBABILITIES,
)
_PROBLEM = to_problem(InvalidImage(InvalidImage.example), EXAMPLE_ID)

_IMAGE = ImageAnswer(image=_SIZE, faces=[_FACE], faces_found=1)
IMAGE = EmotionsAnswer(**_WHO, **dict(_IMAGE))
BATCH = BatchAnswer(**_WHO, results=[BatchItem(index=0, result=_IMAGE), BatchItem(index=1, problem=_PROBLEM)])

_GROUP = GroupImage(
    image=ImageSize(width=3072, height=3072),
    group=Group(
        min_faces=10,
        face_count=36,
        probabilities={emotion: float(emotion == "happiness") for emotion in EMOTIONS},
    ),
)
GROUP = GroupAnswer(**_WHO, **dict(_GROUP))
GROUP_BATCH = GroupBatchAnswer(
    **_WHO, results=[GroupBatchItem(index=0, result=_GROUP), GroupBatchItem(index=1, problem=_PROBLEM)]
)

FRAME = FrameAnswer(
    frame=1,
    time_s=0.1,
    dropped=0,
    image=_SIZE,
    faces_found=1,
    faces=[
        TrackedFace(
            **dict(_FACE),
            track=1,
            smoothed=Smoothed(
                emotion="happiness", confidence=0.996376, verdict="certain", probabilities=_PROBABILITIES
            ),
        )
    ],
)
GROUP_FRAME = GroupFrameAnswer(frame=1, time_s=0.1, dropped=0, **dict(_GROUP))
GROUP_SUMMARY = GroupStreamSummary(**_WHO, frames=3, answered=2, dropped=0, failed=1)
FRAME_PROBLEM = FrameProblem(frame=2, time_s=0.2, problem=_PROBLEM)
SUMMARY = StreamSummary(
    **_WHO,
    frames=3,
    answered=2,
    dropped=0,
    failed=1,
    tracks=[
        TrackSummary(
            track=1,
            first_seen_s=0,
            last_seen_s=0.1,
            frames=2,
            probabilities=_PROBABILITIES,
            time_share={emotion: float(emotion == "happiness") for emotion in EMOTIONS},
            certain=1,
        )
    ],
)

SESSION = SessionInfo(
    id="3f8a1c5e9b7d42f0a6c8e1d3b5f79024",
    name="Lesson 4",
    started_at=datetime(2026, 11, 30, 9, tzinfo=UTC),
    expires_at=datetime(2026, 12, 1, 9, tzinfo=UTC),
    bin_minutes=1,
)
_SHARES: dict[str, Any] = {
    "absent": 0.1,
    "unreadable": 0.0,
    "image_share": {emotion: float(emotion == "happiness") for emotion in EMOTIONS},
    "certain": 1.0,
}
_SHARES_OF_GROUP = SessionShares(participants=1, images=30, **_SHARES)
_PARTICIPANTS = [ParticipantShares(participant="anna", images=30, **_SHARES)]
SESSION_REPORT = SessionReport(
    **dict(SESSION),
    group=_SHARES_OF_GROUP,
    participants=_PARTICIPANTS,
    bins=[SessionBin(start_s=0, end_s=60, group=_SHARES_OF_GROUP, participants=_PARTICIPANTS)],
)

JOB = RecordingJob(
    id="3f8a1c5e9b7d42f0a6c8e1d3b5f79024",
    state=RecordingState.working,
    created_at=datetime(2026, 11, 21, 1, 38, 23, tzinfo=UTC),
    frames=151,
    time_s=30.0,
    duration_s=60.0,
    progress=0.5,
    left_s=12.5,
)
TIMELINE = Timeline(
    model=CLASSIFIER,
    frames=[TimelineFrame(time_s=0, image=FRAME.image, faces_found=FRAME.faces_found, faces=FRAME.faces)],
)
_TIME_SHARES = TimeShares(
    frames=1, absent=0.0, seen_s=0.2, time_share=SUMMARY.tracks[0].time_share, certain=1.0
)
REPORT = RecordingReport(
    model=CLASSIFIER,
    duration_s=0.2,
    tracks=SUMMARY.tracks,
    minutes=[Minute(start_s=0, end_s=0.2, **dict(_TIME_SHARES))],
    group=_TIME_SHARES,
)
_GROUP_SHARES = GroupShares(min_faces=10, grouped=1.0, probabilities=_GROUP.group.probabilities)
GROUP_REPORT = GroupRecordingReport(
    model=CLASSIFIER,
    duration_s=0.2,
    minutes=[GroupMinute(start_s=0, end_s=0.2, **dict(_GROUP_SHARES))],
    group=_GROUP_SHARES,
)

DETECTOR = Manifest(
    name="yunet",
    version="1",
    kind="detector",
    sha256={
        "model.pt": "4ee102ca625d888a2fbf60c4d228bb64a82e53c65014555364ac3f681ed293dd",
        "model.onnx": "70fa541e14f45782a0387019f5793f7698bcf18a6cc1fdfed432ea6a71b00efd",
    },
    training=Training(
        data=("weights of libfacedetection (Shiqi Yu et al.), trained on WIDER FACE",),
        licences=("libfacedetection and yuface: BSD-3-Clause",),
        config={"smallest_face_px": 12},
    ),
    intended_use="Finds faces and five landmarks in photographs, to crop them for a classifier.",
    limits=("Faces under 12 px are never found.",),
)


def example_of(
    example: BaseModel, *, nulls: bool = False, status: int = 200
) -> dict[int | str, dict[str, Any]]:
    """The answer of a route, for its OpenAPI document. nulls: whether null fields are shown."""
    return {status: {"content": {"application/json": {"example": as_json(example, nulls=nulls)}}}}


def text_examples(**examples: str) -> dict[int | str, dict[str, Any]]:
    """The 200 answer of a route that is not JSON, for its OpenAPI document, by media type."""
    schema = {"type": "string"}
    return {200: {"content": {kind: {"schema": schema, "example": text} for kind, text in examples.items()}}}


def as_json(example: BaseModel, *, nulls: bool = False) -> dict[str, Any]:
    return example.model_dump(mode="json", exclude_none=not nulls)
