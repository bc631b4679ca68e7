"""What callers send and get: the query and the answers of the API."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Verdict = Literal["certain", "uncertain"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Include(StrEnum):
    """What an answer can hold beside the emotions."""

    landmarks = "landmarks"
    quality = "quality"
    experts = "experts"
    engagement = "engagement"


class EmotionQuery(BaseModel):
    """The query of `POST /v1/emotions` and of `/v1/emotions/batch`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_faces: Annotated[int, Field(ge=1, le=128)] = Field(
        32, description="Most faces answered, largest first."
    )
    min_face_px: Annotated[float, Field(ge=16, le=4096)] = Field(
        32, description="Smallest face looked for, in pixels of the image; large images raise it."
    )
    min_confidence: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="Least detection score.")
    detect: bool = Field(True, description="False: the whole image is one face crop.")
    include: str = Field("", description=f"Comma-separated list of {', '.join(Include)}.")

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


class ImageUpload(BaseModel):
    """The JSON form of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(description="The image file as base64; a data URL is accepted.")


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
    mouth_left: Point
    mouth_right: Point


class Experts(BaseModel):
    """Weight of each of the four experts, 0 where the gate did not choose it."""

    large_kernel: list[float] = Field(description="Mixture over the large-kernel features.")
    fused: list[float] = Field(description="Mixture over the small-kernel and backbone features.")


class Engagement(BaseModel):
    """Emotion part of the concentration index of Sharma et al. (arXiv 1909.12913)."""

    index: float = Field(description="Probability of the emotion times its weight.")


class Quality(BaseModel):
    """How well the photo shows the face."""

    size_px: float = Field(description="Shorter side of the box.")
    sharpness: float = Field(description="Variance of the Laplacian of the face at 64 px; low is blurred.")
    brightness: float = Field(description="Mean luma, 0 to 1.")
    contrast: float = Field(description="Standard deviation of luma, 0 to 0.5.")
    roll_degrees: float | None = Field(
        None, description="Tilt of the line through the eyes, clockwise; absent with `detect=false`."
    )
    yaw: float | None = Field(
        None, description="Estimate from the nose, -1 left to 1 right; absent with `detect=false`."
    )


class Face(BaseModel):
    """One face. Parts that were not asked for by `include` are absent."""

    box: Box
    detection_confidence: float | None = Field(None, description="Absent with `detect=false`.")
    emotion: str
    confidence: float = Field(description="Calibrated probability of `emotion`.")
    verdict: Verdict
    probabilities: dict[str, float]
    landmarks: Landmarks | None = None
    quality: Quality | None = None
    experts: Experts | None = None
    engagement: Engagement | None = Field(None, description="Absent for contempt, which has no weight.")


class ModelName(BaseModel):
    name: str
    version: str


class ImageSize(BaseModel):
    """As a person sees the image: EXIF orientation applied."""

    width: int
    height: int


class ImageAnswer(BaseModel):
    """The faces of one image, largest first; none found is an empty list."""

    image: ImageSize
    faces: list[Face]


class EmotionsAnswer(BaseModel):
    """An `ImageAnswer`, with the request that it answers and the model that answered."""

    request_id: str
    model: ModelName
    image: ImageSize
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

    request_id: str
    model: ModelName
    results: list[BatchItem]
