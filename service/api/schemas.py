"""What callers send and get: the query and the answers of the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from service.core.errors import BY_CODE
from service.core.manifest import EMOTIONS
from service.core.query import MAX_FACES, Query
from service.core.seen import Reason as KnownReason
from service.core.seen import Verdict

MAX_BATCH_IMAGES = 32

# Lists that may grow: the document names the values of this version, and allows others by `| str`.
Reason = TypeAliasType("Reason", KnownReason)
Emotion = TypeAliasType("Emotion", Annotated[str, WithJsonSchema({"type": "string", "enum": list(EMOTIONS)})])
ProblemCode = TypeAliasType(
    "ProblemCode", Annotated[str, WithJsonSchema({"type": "string", "enum": sorted(BY_CODE)})]
)
Probabilities = TypeAliasType(
    "Probabilities",
    Annotated[
        dict[Emotion | str, float],
        Field(
            description=f"A number from 0 to 1 for each of the model's emotions, of {', '.join(EMOTIONS)}. "
            "A model may have fewer or others: `labels` of its card."
        ),
    ],
)


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
    include: tuple[Include, ...] = Field(
        (),
        description=f"{', '.join(Include)}: repeated, or with commas between.",
        # Only for the document: the validator below says which name is unknown.
        json_schema_extra={"items": {"type": "string", "pattern": f"^(({_PARTS})(,({_PARTS}))*)?$"}},
    )

    @field_validator("include", mode="before")
    @classmethod
    def _known(cls, value: str | Sequence[str]) -> list[str]:
        parts = [value] if isinstance(value, str) else value
        names = [name.strip() for part in parts for name in part.split(",") if name.strip()]
        for name in names:
            if name not in set(Include):
                raise ValueError(f"{name!r} is none of {', '.join(Include)}")
        return names

    def includes(self, part: Include) -> bool:
        return part in self.include

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
        query = super().to_pipeline()
        return query if self.detect else replace(query, detect=False)


class GroupQuery(BaseModel):
    """The query where only groups are answered: whoever could choose the faces could single one out."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _base64(character: str) -> str:
    """A pattern for base64, with line breaks anywhere, with or without padding."""
    one, pad = f"{character}[\\r\\n\\t]*", "=[\\r\\n\\t]*"
    return f"({one * 4})*({one * 2}({pad}){{0,2}}|{one * 3}({pad})?)?"


# As the body is checked: each alphabet, but not both at once.
_BASE64 = (
    r"^([Dd][Aa][Tt][Aa]:[^,]*;[Bb][Aa][Ss][Ee]64,)?[\r\n\t]*"
    f"({_base64('[A-Za-z0-9+/]')}|{_base64('[A-Za-z0-9_-]')})$"
)


# A PNG of one pixel.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNoaGgAAAMEAYFL09IQAAAAAElFTkSuQmCC"


class ImageUpload(BaseModel):
    """The JSON form of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(
        description="The image file as base64, of the standard or the url-safe alphabet, or as a data URL.",
        json_schema_extra={"pattern": _BASE64},
        examples=[_PIXEL],
    )


class ImageForm(BaseModel):
    """The multipart form of a request."""

    model_config = ConfigDict(extra="forbid")

    image: bytes = Field(description="The image file.")


class BatchForm(BaseModel):
    """The multipart form of a batch."""

    model_config = ConfigDict(extra="forbid")

    images: list[bytes] = Field(description="The image files.", min_length=1, max_length=MAX_BATCH_IMAGES)


# What an answer holds must not be in the message of a failure, and so in the log.
INPUT_HIDDEN = ConfigDict(hide_input_in_errors=True)


class Sparse(BaseModel):
    """What does not apply is absent and never null: an answer is written without its None fields."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        for name, field in schema["properties"].items():
            if field.get("default", ...) is None:
                (kind,) = (kind for kind in field.pop("anyOf") if kind != {"type": "null"})
                del field["default"]
                field |= kind
            elif "default" in field:
                schema["required"] = [*schema.get("required", []), name]
        return reference


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
    attention: see docs/explanation/engagement.md before it is used for anything.
    """

    index: float = Field(description="Probability of the emotion times its weight, 0 to 0.9.")


class Heatmap(BaseModel):
    """Which parts of a face its answer rests on: how far its log-odds fall where they are covered."""

    png: str = Field(description="Base64 of a PNG with transparency, to be drawn over `box`.")
    box: Box = Field(description="Where it lies in the image; not clipped to it.")
    largest_fall: float = Field(
        description="Most that covering one patch takes from the probability of the emotion."
    )


class Quality(Sparse):
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


class Face(Sparse):
    """One face. Parts that were not asked for by `include` are absent."""

    box: Box
    detection_confidence: float | None = Field(None, description="Absent with `detect=false`.")
    emotion: Emotion | str = Field(description="The most probable emotion.")
    confidence: float = Field(description="Calibrated probability of `emotion`.")
    verdict: Verdict
    reasons: list[Reason | str] | None = Field(
        None, description="Why the verdict is `uncertain`; absent where it is `certain`."
    )
    probabilities: Probabilities
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


class Group(Sparse):
    """All faces of one image together; of fewer than `min_faces` nothing else is said."""

    min_faces: int
    face_count: int | None = Field(None, description="How many; absent if fewer than `min_faces`.")
    probabilities: Probabilities | None = Field(
        None, description="Mean probability of each emotion, rounded; absent if fewer than `min_faces`."
    )


class GroupImage(BaseModel):
    """One image where only groups are answered."""

    image: ImageSize
    group: Group


class EmotionsAnswer(BaseModel):
    """An `ImageAnswer`, with the request that it answers and the model that answered."""

    model_config = INPUT_HIDDEN

    request_id: str
    model: ModelName
    image: ImageSize
    faces_found: int = FACES_FOUND
    faces: list[Face]


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="`urn:expressnet:problem:` and the code.")
    title: str = Field(description="One sentence that belongs to the code.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong this time, for people.")
    code: ProblemCode | str = Field(description="What programs should decide by.")
    request_id: str = Field(description="As in `X-Request-ID`.")


class BatchItem(Sparse):
    """One image of a batch: `result` or `problem`."""

    index: int
    result: ImageAnswer | None = None
    problem: Problem | None = None
    retry_after_s: int | None = Field(None, description="Seconds after which the image may be answered.")


class BatchAnswer(BaseModel):
    """One item per image, in the order of the request."""

    model_config = INPUT_HIDDEN

    request_id: str
    model: ModelName
    results: list[BatchItem]


class GroupAnswer(BaseModel):
    """A `GroupImage`, with the request that it answers and the model that answered."""

    model_config = INPUT_HIDDEN

    request_id: str
    model: ModelName
    image: ImageSize
    group: Group


class GroupBatchItem(Sparse):
    """One image of a batch: `result` or `problem`."""

    index: int
    result: GroupImage | None = None
    problem: Problem | None = None
    retry_after_s: int | None = Field(None, description="Seconds after which the image may be answered.")


class GroupBatchAnswer(BaseModel):
    """One item per image, in the order of the request; images are never put together."""

    model_config = INPUT_HIDDEN

    request_id: str
    model: ModelName
    results: list[GroupBatchItem]
