"""The model manifest: the only truth about labels, input size, crop and calibration.

Export writes it, training's evaluation and both engines read it, and `GET /v1/models` shows it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.core.errors import ModelFileError

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

Point = tuple[float, float]

ModelFile = Literal["model.onnx", "model.pt"]
"""The two files of a model version, made of one network: for ONNX Runtime, and TorchScript for Triton."""
ONNX: ModelFile = "model.onnx"
TORCHSCRIPT: ModelFile = "model.pt"
MODEL_FILES: tuple[ModelFile, ...] = (ONNX, TORCHSCRIPT)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Crop(_Part):
    """Where eyes and mouth land in the model's input, as fractions of its side (x right, y down)."""

    left_eye: Point
    right_eye: Point
    mouth: Point


class Input(_Part):
    """What the classifier takes: faces of `size` x `size` px."""

    size: Annotated[int, Field(gt=0, le=1024)]
    crop: Crop


class Calibration(_Part):
    """Temperature inside the graph, and the expected calibration error it was measured to give."""

    temperature: Annotated[float, Field(gt=0)]
    ece_before: float
    ece_after: float
    data: str


QualityCode = Literal[
    "too_small",
    "blurred",
    "too_dark",
    "too_bright",
    "low_contrast",
    "occluded",
    "turned_away",
    "tilted",
]
QualityMeasure = Literal[
    "size_px", "sharpness", "brightness", "contrast", "occlusion", "yaw", "pitch", "roll_degrees"
]
Share = Annotated[float, Field(ge=0, le=1)]


class Band(_Part):
    """Faces whose measured value lies from `low` on and below `high`, and what the model gave for them."""

    low: float
    high: float
    samples: Annotated[int, Field(ge=0)]
    accuracy: Share
    confidence: Share
    certain: Share
    certain_accuracy: Share


class QualityLimit(_Part):
    """What a face must at least or may at most measure to be `certain`; neither where no value is justified.

    Of yaw, pitch and roll the amount counts, whatever the direction.
    """

    code: QualityCode
    measure: QualityMeasure
    min: float | None = None
    max: float | None = None
    bands: tuple[Band, ...]

    @model_validator(mode="after")
    def _one_side(self) -> QualityLimit:
        if self.min is not None and self.max is not None:
            raise ValueError("a limit is `min` or `max`, not both")
        return self


class QualityLimits(_Part):
    """From where on a face is too poor for a `certain` answer, chosen by `rule` on `data`."""

    limits: tuple[QualityLimit, ...]
    rule: str
    data: str


class VerdictRule(_Part):
    """Below `threshold` or beyond a limit of `quality` an answer is `uncertain`; at it, what was measured."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    coverage: float
    accuracy: float
    data: str
    quality: QualityLimits | None = None


class Metric(_Part):
    """One figure on one data set, with its sample count and a 95 % interval."""

    value: float
    samples: Annotated[int, Field(ge=0)]
    interval: tuple[float, float] | None = None


class Subgroups(_Part):
    """How unequal the model was on one test split, and of whom nothing is known.

    accuracy: of faces that have something in common; recall: by emotion, the share found of those with it.
    """

    data: str
    accuracy: dict[str, Metric]
    recall: dict[str, Metric]
    not_measured: tuple[str, ...]


class Training(_Part):
    """What made the weights."""

    data: tuple[str, ...]
    licences: tuple[str, ...]
    config: dict[str, Any]
    commit: str | None = None
    seeds: tuple[int, ...] = ()


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(_Part):
    """One served model; sha256: of each of its two files."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")]
    kind: Literal["classifier", "detector"]
    sha256: Annotated[dict[ModelFile, Digest], Field(min_length=len(MODEL_FILES))]
    labels: tuple[str, ...] = ()
    input: Input | None = None
    calibration: Calibration | None = None
    verdict: VerdictRule | None = None
    metrics: dict[str, dict[str, Metric]] = {}
    subgroups: Subgroups | None = None
    training: Training
    intended_use: str
    limits: tuple[str, ...]


class ClassifierManifest(Manifest):
    """A manifest that holds all that a classifier cannot be served without."""

    kind: Literal["classifier"] = "classifier"
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    input: Input
    verdict: VerdictRule


def digest(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_path(repository: Path, name: str, version: str, file: ModelFile) -> Path:
    """Where Triton's layout keeps a file of a model."""
    return repository / name / version / file


def digest_parameter(version: str) -> str:
    """The parameter of `config.pbtxt` that holds the SHA-256 of a version's TorchScript file."""
    return f"sha256_{version}"


def manifest_path(repository: Path, name: str, version: str | None = None) -> Path:
    """Of the version that a model is served in by default, or of another one beside it."""
    folder = repository / name
    return folder / "manifest.json" if version is None else folder / version / "manifest.json"


def read_manifest(repository: Path, name: str, version: str | None = None) -> Manifest:
    """The manifest of one model, of its default version unless told.

    A classifier's comes as `ClassifierManifest`.
    Raises `ModelFileError` when it is missing or does not hold what it must.
    """
    default = manifest_path(repository, name)
    if version is None:
        return _read(default, name)
    beside = manifest_path(repository, name, version)
    manifest = _read(beside if beside.exists() else default, name)
    if manifest.version != version:
        raise ModelFileError(f"{repository / name} has no version {version}")
    return manifest


def _read(path: Path, name: str) -> Manifest:
    try:
        raw = json.loads(path.read_bytes())
        kind = ClassifierManifest if raw.get("kind") == "classifier" else Manifest
        manifest = kind.model_validate(raw)
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} is missing; set EXPRESSNET_MODEL_REPOSITORY") from error
    except (OSError, ValueError, AttributeError, RecursionError, ValidationError) as error:
        raise ModelFileError(f"{path} is not a valid manifest: {error}") from error
    if manifest.name != name:
        raise ModelFileError(f"{path} is the manifest of another model, {manifest.name}")
    return manifest


def survey(repository: Path) -> list[tuple[str, Manifest | ModelFileError]]:
    """Every model of a repository by name and version, with its manifest or with what is wrong with it.

    Raises `ModelFileError` when there is none.
    """
    found: list[tuple[str, Manifest | ModelFileError]] = []
    for folder in sorted(path for path in repository.glob("*") if path.is_dir()):
        for version in (None, *other_versions(repository, folder.name)):
            try:
                manifest = read_manifest(repository, folder.name, version)
                for file in MODEL_FILES:
                    verified_model_path(repository, manifest, file)
                found.append((folder.name, manifest))
            except ModelFileError as error:
                found.append((folder.name, error))
    if not found:
        raise ModelFileError(f"{repository} holds no models; set EXPRESSNET_MODEL_REPOSITORY")
    return found


def other_versions(repository: Path, name: str) -> list[str]:
    """Versions of a model beside its default one, oldest first."""
    beside = (repository / name).glob("[1-9]*/manifest.json")
    return sorted((path.parent.name for path in beside), key=int)


def verified_model_path(repository: Path, manifest: Manifest, file: ModelFile) -> Path:
    """The path of a model file whose SHA-256 is the manifest's.

    Raises `ModelFileError` when it cannot be read, or with both digests when they differ.
    """
    path = model_path(repository, manifest.name, manifest.version, file)
    try:
        found = digest(path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if found != (expected := manifest.sha256[file]):
        raise ModelFileError(f"{path} has sha256 {found}, but its manifest says {expected}")
    return path
