"""The model manifest: the only source of labels, input size, crop and calibration.

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
"""The two files of a model version hold one network: for ONNX Runtime, and TorchScript for Triton."""
ONNX: ModelFile = "model.onnx"
TORCHSCRIPT: ModelFile = "model.pt"
MODEL_FILES: tuple[ModelFile, ...] = (ONNX, TORCHSCRIPT)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Crop(_Part):
    """Where the eyes and the mouth are in the crop: x and y as fractions of its side."""

    left_eye: Point = Field(description="Centre of the left eye.")
    right_eye: Point = Field(description="Centre of the right eye.")
    mouth: Point = Field(description="Centre of the mouth.")


class Input(_Part):
    """The input of the classifier."""

    size: Annotated[int, Field(gt=0, le=1024)] = Field(description="Side of the square crop, in pixels.")
    crop: Crop = Field(description="Position of the face in the crop.")


class Calibration(_Part):
    """How the probabilities are calibrated: as the share of the annotators who name an emotion."""

    temperature: Annotated[float, Field(gt=0)] = Field(
        description="The model divides the outputs of the network by it before softmax."
    )
    ece_before: float = Field(description="Expected calibration error without it.")
    ece_after: float = Field(description="Expected calibration error with it.")
    ece_by_chance: float = Field(
        description="Expected calibration error that perfect calibration would show on as many faces."
    )
    data: str = Field(description="Data of the measurement.")


QualityCode = Literal[
    "too_small",
    "blurred",
    "too_dark",
    "too_bright",
    "low_contrast",
    "occluded",
    "no_clear_face",
    "turned_away",
    "tilted",
]
QualityMeasure = Literal[
    "size_px",
    "sharpness",
    "brightness",
    "contrast",
    "occlusion",
    "face_likeness",
    "yaw",
    "pitch",
]
Share = Annotated[float, Field(ge=0, le=1)]


class Band(_Part):
    """Faces with a similar value of a measure, and how accurate the model is for them."""

    low: float = Field(description="Smallest value of the band.")
    high: float = Field(description="End of the band. Values of the band are smaller.")
    samples: Annotated[int, Field(ge=0)] = Field(description="Number of faces.")
    accuracy: Share = Field(description="Share of correct answers.")
    confidence: Share = Field(description="Mean confidence.")
    certain: Share = Field(description="Share of faces whose confidence reaches the threshold.")
    certain_accuracy: Share = Field(description="Share of correct answers among these faces.")


class QualityLimit(_Part):
    """Limit of one measure for a `certain` verdict. For angles it applies to the absolute value."""

    code: QualityCode = Field(description="Reason in the answer when a face exceeds the limit.")
    measure: QualityMeasure = Field(description="Field of `quality` that the limit applies to.")
    min: float | None = Field(None, description="Min allowed value.")
    max: float | None = Field(
        None, description="Max allowed value. If `min` and `max` are `null`, no limit is justified."
    )
    bands: tuple[Band, ...] = Field(description="The measurement behind the limit.")

    @model_validator(mode="after")
    def _one_side(self) -> QualityLimit:
        if self.min is not None and self.max is not None:
            raise ValueError("a limit is `min` or `max`, not both")
        return self


class QualityLimits(_Part):
    """Quality limits of a `certain` verdict."""

    limits: tuple[QualityLimit, ...] = Field(description="One limit for each measure.")
    rule: str = Field(description="Rule that chose the limits.")
    data: str = Field(description="Data of the measurement.")


class Prior(_Part):
    """The shares of the emotions that the probabilities assume, and how they change for other shares.

    A probability is multiplied by (new share / assumed share) ** strength, then scaled to the sum 1.
    """

    shares: dict[str, Share] = Field(
        description="Share of each emotion among the faces of the training data, by the majority of votes."
    )
    strength: Share = Field(
        description="Strength for shares that the caller names. It is below 1 because single votes vary more "
        "than majorities."
    )
    balanced_strength: Share = Field(
        description="Strength for the prior `balanced`, whose shares are equal. It costs at most half a "
        "point of accuracy on the validation rows."
    )


class VerdictRule(_Part):
    """When a verdict is `certain`."""

    threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        description="Min confidence of a `certain` verdict."
    )
    coverage: float = Field(description="Share of faces whose confidence reaches the threshold.")
    accuracy: float = Field(
        description="Share of correct answers among these faces. An answer is correct if no other answer of "
        "the annotators has more votes, including unknown and not a face."
    )
    data: str = Field(description="Data of the measurement.")
    quality: QualityLimits | None = Field(
        None, description="Quality limits. A face that exceeds a limit is `uncertain`."
    )


class Metric(_Part):
    """One figure on one data set."""

    value: float = Field(description="The figure.")
    samples: Annotated[int, Field(ge=0)] = Field(description="Number of samples.")
    interval: tuple[float, float] | None = Field(None, description="95 % interval of the figure.")


class Subgroups(_Part):
    """How the accuracy differs between groups of faces."""

    data: str = Field(description="Test split of the measurement.")
    accuracy: dict[str, Metric] = Field(
        description="Accuracy by group of faces: light, contrast, sharpness, agreement of the annotators."
    )
    recall: dict[str, Metric] = Field(description="Recall by emotion.")
    not_measured: tuple[str, ...] = Field(
        description="Groups that the data do not name. Expect different accuracy for them."
    )


class Training(_Part):
    """How the weights were made."""

    data: tuple[str, ...] = Field(description="Training data.")
    licences: tuple[str, ...] = Field(description="Licences of data and weights.")
    config: dict[str, Any] = Field(description="Configuration of the training or the export.")
    commit: str | None = Field(None, description="Commit of the training code.")
    seeds: tuple[int, ...] = Field((), description="Seeds of the random numbers.")


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(_Part):
    """The manifest of a model."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = Field(
        description="Name of the model, and of its folder."
    )
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")] = Field(
        description="Version that is served by default."
    )
    kind: Literal["classifier", "detector"] = Field(description="Kind of the model.")
    sha256: Annotated[dict[ModelFile, Digest], Field(min_length=len(MODEL_FILES))] = Field(
        description="SHA-256 of the two files: `model.onnx` for ONNX Runtime, `model.pt` for Triton."
    )
    labels: tuple[str, ...] = Field((), description="Emotions, in the order of `probabilities`.")
    input: Input | None = Field(None, description="Input of a classifier.")
    calibration: Calibration | None = Field(None, description="Calibration of a classifier.")
    prior: Prior | None = Field(None, description="Assumed shares of the emotions of a classifier.")
    verdict: VerdictRule | None = Field(None, description="When a verdict is `certain`.")
    metrics: dict[str, dict[str, Metric]] = Field(
        {},
        description="Figures by data set and metric. `onnx_against_torchscript` has the max differences "
        "between the two files.",
    )
    subgroups: Subgroups | None = Field(None, description="Accuracy by group of faces.")
    training: Training = Field(description="How the weights were made.")
    intended_use: str = Field(description="What the model is for.")
    limits: tuple[str, ...] = Field(description="What the model cannot do.")


class ClassifierManifest(Manifest):
    """The manifest of a classifier, with all fields that serving needs."""

    kind: Literal["classifier"] = "classifier"
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    input: Input
    prior: Prior
    verdict: VerdictRule


def digest(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_path(repository: Path, name: str, version: str, file: ModelFile) -> Path:
    """The path of a model file in Triton's layout."""
    return repository / name / version / file


def digest_parameter(version: str) -> str:
    """The parameter of `config.pbtxt` that holds the SHA-256 of a version's TorchScript file."""
    return f"sha256_{version}"


def manifest_path(repository: Path, name: str, version: str | None = None) -> Path:
    """The path of the manifest of a version; None is the default version."""
    folder = repository / name
    return folder / "manifest.json" if version is None else folder / version / "manifest.json"


def read_manifest(repository: Path, name: str, version: str | None = None) -> Manifest:
    """The manifest of a version of a model; None is the default version.

    A classifier's manifest is a `ClassifierManifest`.
    Raises `ModelFileError` when the manifest or the version is missing, or the manifest is invalid.
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
    """Every version of every model of a repository: the model's name, and the manifest or its error.

    Raises `ModelFileError` when the repository holds no models.
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
    """Versions of a model besides the default version, oldest first."""
    beside = (repository / name).glob("[1-9]*/manifest.json")
    return sorted((path.parent.name for path in beside), key=int)


def verified_model_path(repository: Path, manifest: Manifest, file: ModelFile) -> Path:
    """The path of a model file, after its SHA-256 is compared with the manifest.

    Raises `ModelFileError` when the file cannot be read or the digests differ.
    """
    path = model_path(repository, manifest.name, manifest.version, file)
    try:
        found = digest(path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if found != (expected := manifest.sha256[file]):
        raise ModelFileError(f"{path} has sha256 {found}, but its manifest says {expected}")
    return path
