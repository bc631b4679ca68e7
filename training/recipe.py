"""A recipe: the stages that lead from initial weights to a served model, as one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from training.config import RunConfig, parse_yaml
from training.lineage import content_sha256
from training.settings import changed, preset

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Seed = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GivenFile(_Part):
    """A file from outside of the recipe.

    file: a relative path starts at the recipe or, if it is not there, at the current folder.
    sha256: of the file; for face-api's manifest, of the weights that it names. Without it, the digest of the
    first run counts. kind: the name in the registry of backbones, where the file does not show it.
    source: where to get the file.
    """

    file: Path
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    kind: str | None = None
    source: str | None = None

    def located(self, folder: Path) -> Path:
        """Raises `ValueError` when the file is missing or has another digest."""
        path = folder / self.file if (folder / self.file).exists() else self.file
        if not path.exists():
            hint = f"; get it from {self.source}" if self.source else ""
            raise ValueError(f"{self.file} is missing, in {folder} and in the current folder{hint}")
        if self.sha256 is not None and (found := content_sha256(path)) != self.sha256:
            raise ValueError(f"{path} has the SHA-256 {found}, and the recipe names {self.sha256}")
        return path


class TrainingStage(_Part):
    """One run for each seed."""

    name: Name
    preset: str | None = None
    like: str | None = None
    """The settings are those of a preset or of an earlier stage, with the changes in `settings`."""
    settings: dict[str, Any] = {}
    start: GivenFile | str | None = None
    """Initial weights: a file, or the best epoch of an earlier stage."""
    teachers: tuple[GivenFile | str, ...] = ()
    """Files or earlier stages. Each seed of a stage is a teacher."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.preset is None) == (self.like is None):
            raise ValueError("a stage needs either preset or like")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ")
        if "seed" in self.settings:
            raise ValueError("settings.seed does not fit a stage, which has seeds")
        return self


class AverageStage(_Part):
    """The mean of the weights of all seeds of earlier stages (Wortsman et al., 2022)."""

    name: Name
    average: Annotated[tuple[str, ...], Field(min_length=1)]


class ExportStage(_Part):
    """A model repository with an earlier stage as classifier, and with the detector."""

    name: Name
    export: str
    model: Name = "expressnet_moe"


def _kind(stage: Any) -> str:
    keys = stage if isinstance(stage, Mapping) else vars(stage)
    return next((kind for kind in ("average", "export") if kind in keys), "training")


Stage = Annotated[
    Annotated[TrainingStage, Tag("training")]
    | Annotated[AverageStage, Tag("average")]
    | Annotated[ExportStage, Tag("export")],
    Discriminator(_kind),
]


class Recipe(_Part):
    """Stages in the order in which they run."""

    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _refers_to_earlier_stages(self) -> Self:
        networks: dict[str, int] = {}  # how many a stage makes
        for stage in self.stages:
            single, several = _references(stage)
            for name in (*single, *several):
                if name not in networks:
                    raise ValueError(f"stage {stage.name} refers to {name}, which is not an earlier stage")
                if not networks[name]:
                    raise ValueError(f"stage {stage.name} refers to {name}, which is an export")
            for name in single:
                if networks[name] > 1:
                    raise ValueError(f"stage {stage.name} needs one network, but {name} has several seeds")
            if stage.name in networks:
                raise ValueError(f"two stages have the name {stage.name}")
            made = len(stage.seeds) if isinstance(stage, TrainingStage) else 1
            networks[stage.name] = 0 if isinstance(stage, ExportStage) else made
        return self


def read_recipe(path: Path) -> Recipe:
    """Raises `ValueError`, which names the stage or the key, for a recipe that does not fit together."""
    return Recipe.model_validate(parse_yaml(path.read_text(), path))


def is_recipe(path: Path) -> bool:
    """Whether a file has stages. Raises `ValueError` when it is not YAML."""
    content = parse_yaml(path.read_text(), path)
    return isinstance(content, dict) and "stages" in content


def configurations(recipe: Recipe, changes: Mapping[str, Any]) -> dict[str, RunConfig]:
    """The configuration of each training stage by name, with the first seed.

    changes: of the settings of every stage. Raises `ValueError` for settings that are not allowed.
    """
    found: dict[str, RunConfig] = {}
    for stage in recipe.stages:
        if not isinstance(stage, TrainingStage):
            continue
        try:
            if stage.preset is not None:
                base = preset(stage.preset)
            elif stage.like in found:
                base = found[stage.like]
            else:
                raise ValueError(f"{stage.like} is not an earlier training stage")
            config = changed(changed(base, stage.settings), {**changes, "seed": stage.seeds[0]})
            if bool(stage.teachers) != (config.loss.distillation > 0):
                raise ValueError("teachers and loss.distillation above 0 need each other")
        except ValueError as error:
            raise ValueError(f"stage {stage.name}: {error}") from error
        found[stage.name] = config
    return found


def _references(stage: Stage) -> tuple[list[str], list[str]]:
    """(stages of which one network is needed, stages of which all seeds are used)."""
    if isinstance(stage, TrainingStage):
        start = [stage.start] if isinstance(stage.start, str) else []
        return start, [each for each in stage.teachers if isinstance(each, str)]
    if isinstance(stage, AverageStage):
        return [], list(stage.average)
    return [stage.export], []
