"""What callers send and get: the query and the answers of the API."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.core.query import MAX_FACES, Query
from service.core.seen import Reason, Verdict


class Include(StrEnum):
    """What an answer can hold beside the emotions."""

    landmarks = "landmarks"
    quality = "quality"
    experts = "experts"
    engagement = "engagement"
    heatmap = "heatmap"


_PARTS = "|".join(Include)
_DEFAULT = Query()


class DetectionQuery(BaseModel):
    """Which faces are answered, and what is said of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_faces: Annotated[int, Field(ge=1, le=MAX_FACES)] = Field(
        _DEFAULT.max_faces, description="Most faces answered, largest first."
    )
    min_face_px: Annotated[float, Field(ge=16, le=4096)] = Field(
        _DEFAULT.min_face_px,
        description="Smallest face looked for, in pixels of the image; large images raise it.",
    )
    min_detection_confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        _DEFAULT.min_detection_confidence, description="Minimum detection score."
    )
    include: str = Field(
        "",
        description=f"Comma-separated list of {', '.join(Include)}.",
        # Only for the document: the validator below says which name is unknown.
        json_schema_extra={"pattern": f"^(({_PARTS})(,({_PARTS}))*)?$"},
    )

    @field_validator("include")
    @classmethod
    def _known(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        for name in names:
            if name not in set(Include):
                raise ValueError(f"{name!r} is none of {', '.join(Include)}")
        return ",".join(names)

    def includes(self, part: Include) -> bool:
        return part in self.include.split(",")

    def to_pipeline(self) -> Query:
        """What of it the pipeline has to know."""
        return Query(
            self.max_faces,
            self.min_face_px,
            self.min_detection_confidence,
            heatmaps=self.includes(Include.heatmap),
        )


class EmotionQuery(DetectionQuery):
    """The query of `POST /v1/emotions` and of `/v1/emotions/batch`."""

    detect: bool = Field(True, description="False: the whole image is one face crop.")

    def to_pipeline(self) -> Query:
        return replace(super().to_pipeline(), detect=self.detect)


class GroupQuery(BaseModel):
    """The query where only groups are answered: whoever could choose the faces could single one out."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# As the body is checked: padded, without line breaks.
_BASE64 = "^(data:[^,]*,)?([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


class ImageUpload(BaseModel):
    """The JSON form of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(
        description="The image file as base64; a data URL is accepted.",
        json_schema_extra={"pattern": _BASE64},
    )


# What an answer holds must not be in the message of a failure, and so in the log.
UNTOLD = ConfigDict(hide_input_in_errors=True)


class Box(BaseModel):
    """Pixels of the image as a person sees it, clipped to it."""

    x: float
    y: float
    width: float
    height: float


class Point(BaseModel):
    """Pixels of the image as a person sees it."""

    x: float
    y: float


class Landmarks(BaseModel):
    """Left and right are the image's."""

    left_eye: Point
    right_eye: Point
    nose: Point
    left_mouth: Point
    right_mouth: Point


class Experts(BaseModel):
    """Weight of each of the four experts, 0 where the gate did not choose it."""

    large_kernel: list[float] = Field(description="Mixture over the large-kernel features.")
    fused: list[float] = Field(description="Mixture over the small-kernel and backbone features.")


class Engagement(BaseModel):
    """Emotion part of the concentration index of Sharma et al. (arXiv 1909.12913).

    Weights by its implementations; that of disgust was never confirmed from the paper. It says nothing about
    attention: see docs/engagement.md before it is used for anything.
    """

    index: float = Field(description="Probability of the emotion times its weight, 0 to 0.9.")


class Heatmap(BaseModel):
    """Which parts of a face its answer rests on: how far its log-odds fall where they are covered."""

    png: str = Field(description="Base64 of a PNG with transparency, to be drawn over `box`.")
    box: Box = Field(description="Where it lies in the image; not clipped to it.")
    largest_fall: float = Field(
        description="Most that covering one patch takes from the probability of the emotion."
    )


class Quality(BaseModel):
    """How well the photo shows the face; light and sharpness as the classifier gets it."""

    size_px: float = Field(description="Shorter side of the box.")
    sharpness: float = Field(
        description="Variance of the Laplacian of luma over the variance of luma; low is blurred."
    )
    brightness: float = Field(description="Mean luma, 0 to 1.")
    contrast: float = Field(description="Standard deviation of luma, 0 to 0.5.")
    occlusion: float = Field(
        description="How much the face looks as if something covers a part of it, 0 to 1; no measured share."
    )
    roll_degrees: float | None = Field(
        None, description="Tilt of the line through the eyes, clockwise; absent with `detect=false`."
    )
    yaw: float | None = Field(
        None, description="Estimate from the nose, -1 left to 1 right; absent with `detect=false`."
    )
    pitch: float | None = Field(
        None, description="Estimate from the nose, -1 up to 1 down; absent with `detect=false`."
    )


class Face(BaseModel):
    """One face. Parts that were not asked for by `include` are absent."""

    box: Box
    detection_confidence: float | None = Field(None, description="Absent with `detect=false`.")
    emotion: str
    confidence: float = Field(description="Calibrated probability of `emotion`.")
    verdict: Verdict
    reasons: list[Reason] | None = Field(
        None, description="Why the verdict is `uncertain`; absent where it is `certain`."
    )
    probabilities: dict[str, float]
    landmarks: Landmarks | None = None
    quality: Quality | None = None
    experts: Experts | None = None
    engagement: Engagement | None = Field(None, description="Absent for contempt, which has no weight.")
    heatmap: Heatmap | None = Field(None, description="Of the largest faces only.")


class ModelName(BaseModel):
    name: str
    version: str


class ImageSize(BaseModel):
    """As a person sees the image: EXIF orientation applied."""

    width: int
    height: int


FACES_FOUND = Field(description="Faces in the image; `faces` holds the largest `max_faces` of them.")


class ImageAnswer(BaseModel):
    """The faces of one image, largest first; none found is an empty list."""

    image: ImageSize
    faces_found: int = FACES_FOUND
    faces: list[Face]


class Group(BaseModel):
    """All faces of one image together; of fewer than `min_faces` nothing else is said."""

    min_faces: int
    face_count: int | None = Field(None, description="How many; absent if fewer than `min_faces`.")
    probabilities: dict[str, float] | None = Field(
        None, description="Mean probability of each emotion, rounded; absent if fewer than `min_faces`."
    )


class GroupImage(BaseModel):
    """One image where only groups are answered."""

    image: ImageSize
    group: Group


class EmotionsAnswer(BaseModel):
    """An `ImageAnswer`, with the request that it answers and the model that answered."""

    model_config = UNTOLD

    request_id: str
    model: ModelName
    image: ImageSize
    faces_found: int = FACES_FOUND
    faces: list[Face]


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class BatchItem(BaseModel):
    """One image of a batch: `result` or `problem`."""

    index: int
    result: ImageAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """One item per image, in the order of the request."""

    model_config = UNTOLD

    request_id: str
    model: ModelName
    results: list[BatchItem]


class GroupAnswer(BaseModel):
    """A `GroupImage`, with the request that it answers and the model that answered."""

    model_config = UNTOLD

    request_id: str
    model: ModelName
    image: ImageSize
    group: Group


class GroupBatchItem(BaseModel):
    """One image of a batch: `result` or `problem`."""

    index: int
    result: GroupImage | None = None
    problem: Problem | None = None


class GroupBatchAnswer(BaseModel):
    """One item per image, in the order of the request; images are never put together."""

    model_config = UNTOLD

    request_id: str
    model: ModelName
    results: list[GroupBatchItem]
