"""The queries and answers of the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from service.core.errors import BY_CODE
from service.core.manifest import EMOTIONS, Manifest
from service.core.priors import parse_prior
from service.core.query import MAX_FACES, Query
from service.core.seen import Reason as KnownReason
from service.core.seen import Verdict

MAX_BATCH_IMAGES = 32

# These lists may grow: the API document names the values of this version, and `| str` allows others.
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
            description="Probability that somebody who sees the face names this emotion, from 0 to 1, for "
            f"each emotion of the model: {', '.join(EMOTIONS)}. "
            "Another model may have fewer or other emotions: see `labels` of its card."
        ),
    ],
)


_SHARE = f"({'|'.join(EMOTIONS)})=[0-9]+([.][0-9]+)?"
PRIOR_PATTERN = f"^(training|balanced|{_SHARE}(,{_SHARE})*)$"


class Include(StrEnum):
    """What an answer can contain in addition to the emotions."""

    landmarks = "landmarks"
    quality = "quality"
    experts = "experts"
    engagement = "engagement"
    heatmap = "heatmap"


_PARTS = "|".join(Include)
_DEFAULT = Query()


class DetectionQuery(BaseModel):
    """Which faces are in the answer, and what is reported about them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_faces: Annotated[int, Field(ge=1, le=MAX_FACES)] = Field(
        _DEFAULT.max_faces, description="Max number of faces in the answer. The largest faces come first."
    )
    min_face_px: Annotated[float, Field(ge=16, le=4096)] = Field(
        _DEFAULT.min_face_px,
        description="Min length of the longer side of a face, in pixels of the image. Large images raise it.",
    )
    min_detection_confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        _DEFAULT.min_detection_confidence, description="Min detection score of a face."
    )
    include: tuple[Include, ...] = Field(
        (),
        description=f"Additional parts of each face: {', '.join(Include)}. Separate several by commas, or "
        "repeat the parameter.",
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

    prior: Annotated[str, AfterValidator(parse_prior)] | None = Field(
        None,
        description="Shares of the emotions that the probabilities assume: `training`, `balanced`, or shares "
        "by name like `neutral=0.6,happiness=0.4`. The default is that of the service.",
        json_schema_extra={"pattern": PRIOR_PATTERN},
    )

    def includes(self, part: Include) -> bool:
        return part in self.include

    def to_pipeline(self) -> Query:
        """The part of the query that the pipeline needs."""
        return Query(
            self.max_faces,
            self.min_face_px,
            self.min_detection_confidence,
            heatmaps=self.includes(Include.heatmap),
            prior=self.prior,
        )


class EmotionQuery(DetectionQuery):
    """The query of `POST /v1/emotions/batch`, and a part of that of `POST /v1/emotions`."""

    detect: bool = Field(True, description="`false` skips detection: the whole image is one face.")

    def to_pipeline(self) -> Query:
        query = super().to_pipeline()
        return query if self.detect else replace(query, detect=False)


Participant = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]


class SeatQuery(BaseModel):
    """Where the image of one person counts."""

    session: str | None = Field(
        None,
        description="Id of a session. The image counts there for `participant`, who is its largest face.",
    )
    participant: Participant | None = Field(
        None,
        description="Your name for the one person of the image: letters, digits and `._@-`, at most 64.",
    )

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.session is None) != (self.participant is None):
            raise ValueError("session and participant need each other")
        return self


class PhotoQuery(EmotionQuery, SeatQuery):
    """The query of `POST /v1/emotions`."""


class GroupQuery(BaseModel):
    """The query in group mode. It is empty: a caller that chooses faces could single one out."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupPhotoQuery(GroupQuery, SeatQuery):
    """The query of `POST /v1/emotions` in group mode."""


def _base64(character: str) -> str:
    """A pattern for base64, with line breaks anywhere, with or without padding."""
    one, pad = f"{character}[\\r\\n\\t]*", "=[\\r\\n\\t]*"
    return f"({one * 4})*({one * 2}({pad}){{0,2}}|{one * 3}({pad})?)?"


# The same check as for the body: either alphabet, but not a mix of both.
_BASE64 = (
    r"^([Dd][Aa][Tt][Aa]:[^,]*;[Bb][Aa][Ss][Ee]64,)?[\r\n\t]*"
    f"({_base64('[A-Za-z0-9+/]')}|{_base64('[A-Za-z0-9_-]')})$"
)


# A PNG of one pixel.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNoaGgAAAMEAYFL09IQAAAAAElFTkSuQmCC"


class ImageUpload(BaseModel):
    """A request in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(
        description="The image file in base64 (standard or URL-safe alphabet), or as a data URL.",
        json_schema_extra={"pattern": _BASE64},
        examples=[_PIXEL],
    )


class ImageForm(BaseModel):
    """A request as a multipart form."""

    model_config = ConfigDict(extra="forbid")

    image: bytes = Field(description="The image file.")


class BatchForm(BaseModel):
    """A batch as a multipart form."""

    model_config = ConfigDict(extra="forbid")

    images: list[bytes] = Field(description="The image files.", min_length=1, max_length=MAX_BATCH_IMAGES)


# Messages of errors go to the log, and must not contain parts of an answer.
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
    """A rectangle in pixels of the upright image."""

    x: float = Field(description="Left edge.")
    y: float = Field(description="Top edge.")
    width: float = Field(description="Width.")
    height: float = Field(description="Height.")


class Point(BaseModel):
    """A point in pixels of the upright image. It can lie outside the image."""

    x: float = Field(description="Distance from the left edge.")
    y: float = Field(description="Distance from the top edge.")


class Landmarks(BaseModel):
    """Five points of a face. Left and right are those of the image."""

    left_eye: Point = Field(description="Centre of the left eye.")
    right_eye: Point = Field(description="Centre of the right eye.")
    nose: Point = Field(description="Tip of the nose.")
    left_mouth: Point = Field(description="Left corner of the mouth.")
    right_mouth: Point = Field(description="Right corner of the mouth.")


class Experts(BaseModel):
    """Weights of the experts of the network. The gate chooses two of four for each face, the others are 0."""

    large_kernel: list[float] = Field(
        description="Four weights of the mixture over the large-kernel features. The sum is 1."
    )
    fused: list[float] = Field(
        description="Four weights of the mixture over the small-kernel and backbone features. The sum is 1."
    )


class Engagement(BaseModel):
    """Emotion part of the concentration index of Sharma et al. (arXiv 1909.12913).

    It says nothing about attention. Read docs/explanation/engagement.md before you use it.
    """

    index: float = Field(description="`confidence` times the weight of `emotion`, from 0 to 0.9.")


class Heatmap(BaseModel):
    """How much each part of a face contributes to its answer."""

    png: str = Field(
        description="PNG of 112 x 112 px with transparency, in base64. Draw it over `box` of this heatmap."
    )
    box: Box = Field(description="Position of the heatmap in the image. It can extend beyond the image.")
    largest_fall: float = Field(
        description="Max decrease of the probability of `emotion` when one patch is covered."
    )


class Quality(Sparse):
    """How well the image shows the face. Light and sharpness are those of the crop."""

    size_px: float = Field(description="Shorter side of the box, in pixels.")
    sharpness: float = Field(
        description="Variance of the Laplacian of luma divided by the variance of luma. Low means blurred."
    )
    brightness: float = Field(description="Mean of luma, from 0 to 1.")
    contrast: float = Field(description="Standard deviation of luma, from 0 to 0.5.")
    occlusion: float = Field(
        description="Hint of the classifier that something covers a part of the face, from 0 to 1. "
        "It is not the covered share."
    )
    face_likeness: float = Field(
        description="Hint of the classifier that the crop shows an upright face, from 0 to 1."
    )
    roll_degrees: float | None = Field(
        None,
        description="Tilt of the line through the eyes, from -180 to 180, clockwise. Absent with "
        "`detect=false`.",
    )
    yaw: float | None = Field(
        None,
        description="Estimated turn of the head, from -1 (left) to 1 (right) in the image. Absent with "
        "`detect=false`.",
    )
    pitch: float | None = Field(
        None, description="Estimated pitch of the head, from -1 (up) to 1 (down). Absent with `detect=false`."
    )


class Face(Sparse):
    """One face. Parts that `include` does not name are absent."""

    box: Box = Field(description="Position of the face, clipped to the image.")
    detection_confidence: float | None = Field(
        None, description="Score of the detector, from 0 to 1. Absent with `detect=false`."
    )
    emotion: Emotion | str = Field(description="The most probable emotion.")
    confidence: float = Field(description="Probability of `emotion`, the largest of `probabilities`.")
    agreement: float = Field(
        description="How many of ten people would name the same emotion, with the shares of the training "
        "data: 10 times the probability of `emotion` before another prior."
    )
    verdict: Verdict = Field(
        description="`certain` if `confidence` reaches the threshold of the model and the face is within "
        "its quality limits."
    )
    reasons: list[Reason | str] | None = Field(
        None, description="Why the verdict is `uncertain`. Absent if the verdict is `certain`."
    )
    probabilities: Probabilities
    landmarks: Landmarks | None = Field(None, description="Five points of the face.")
    quality: Quality | None = Field(None, description="How well the image shows the face.")
    experts: Experts | None = Field(None, description="Weights of the experts of the network.")
    engagement: Engagement | None = Field(
        None, description="Engagement index. Absent for contempt, which has no weight."
    )
    heatmap: Heatmap | None = Field(
        None, description="What the answer depends on. Only the four largest faces have it."
    )


class ModelName(BaseModel):
    """The classifier that answered."""

    name: str = Field(description="Name of the classifier.")
    version: str = Field(description="Version of the classifier.")
    prior: str = Field(description="Prior of the probabilities: `training`, `balanced`, or shares by name.")

    @classmethod
    def of(cls, classifier: Manifest, prior: str) -> ModelName:
        return cls(name=classifier.name, version=classifier.version, prior=prior)


class ImageSize(BaseModel):
    """Size of the upright image: EXIF orientation is applied."""

    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")


FACES_FOUND = Field(description="Number of faces in the image. `faces` has the largest `max_faces` of them.")
_IMAGE = Field(description="Size of the image.")
_FACES = Field(description="The faces, largest first. The list is empty if no face is found.")
_REQUEST_ID = Field(description="The id of the request, as in `X-Request-ID`.")
_MODEL = Field(description="The classifier that answered.")
_INDEX = Field(description="Position of the image in the request, from 0.")
_PROBLEM = Field(None, description="Why this image has no answer. Absent if there is a `result`.")
_RETRY = Field(None, description="Wait this many seconds before you send the image again.")


class ImageAnswer(BaseModel):
    """The faces of one image."""

    image: ImageSize = _IMAGE
    faces_found: int = FACES_FOUND
    faces: list[Face] = _FACES


class Group(Sparse):
    """All faces of one image together."""

    min_faces: int = Field(
        description="`EXPRESSNET_AGGREGATE_ONLY`, and in a stream twice as many less one. With fewer faces, "
        "the other fields are absent."
    )
    face_count: int | None = Field(None, description="Number of faces, at most 128 in an image.")
    probabilities: Probabilities | None = Field(
        None,
        description="Mean probability of each emotion, in steps of 0.05. The sum can differ from 1. In a "
        "stream some faces, drawn by lot, are not in the mean.",
    )


_GROUP = Field(description="All faces of the image together.")


class GroupImage(BaseModel):
    """The group of one image."""

    image: ImageSize = _IMAGE
    group: Group = _GROUP


class EmotionsAnswer(BaseModel):
    """The answer of `POST /v1/emotions`."""

    model_config = INPUT_HIDDEN

    request_id: str = _REQUEST_ID
    model: ModelName = _MODEL
    image: ImageSize = _IMAGE
    faces_found: int = FACES_FOUND
    faces: list[Face] = _FACES


class Problem(BaseModel):
    """An error, as RFC 9457 problem details."""

    type: str = Field(description="`urn:expressnet:problem:` followed by the code.")
    title: str = Field(description="A short sentence, always the same for the code.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this request, for people. Do not parse it.")
    code: ProblemCode | str = Field(description="The code of the error, for programs.")
    request_id: str = Field(description="The id of the request, as in `X-Request-ID`.")


class BatchItem(Sparse):
    """One image of a batch. It has a `result` or a `problem`."""

    index: int = _INDEX
    result: ImageAnswer | None = Field(None, description="The faces of the image.")
    problem: Problem | None = _PROBLEM
    retry_after_s: int | None = _RETRY


_RESULTS = Field(description="One item for each image, in the order of the request.")


class BatchAnswer(BaseModel):
    """The answer of `POST /v1/emotions/batch`."""

    model_config = INPUT_HIDDEN

    request_id: str = _REQUEST_ID
    model: ModelName = _MODEL
    results: list[BatchItem] = _RESULTS


class GroupAnswer(BaseModel):
    """The answer of `POST /v1/emotions` in group mode."""

    model_config = INPUT_HIDDEN

    request_id: str = _REQUEST_ID
    model: ModelName = _MODEL
    image: ImageSize = _IMAGE
    group: Group = _GROUP


class GroupBatchItem(Sparse):
    """One image of a batch. It has a `result` or a `problem`."""

    index: int = _INDEX
    result: GroupImage | None = Field(None, description="The group of the image.")
    problem: Problem | None = _PROBLEM
    retry_after_s: int | None = _RETRY


class GroupBatchAnswer(BaseModel):
    """The answer of `POST /v1/emotions/batch` in group mode. Each image is a group of its own."""

    model_config = INPUT_HIDDEN

    request_id: str = _REQUEST_ID
    model: ModelName = _MODEL
    results: list[GroupBatchItem] = _RESULTS
