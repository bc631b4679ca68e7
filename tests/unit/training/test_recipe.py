"""Recipes of stages, on a few dozen made-up pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from service.core.manifest import digest
from tests.unit.training.made_up import tiny_config, write_class_folders
from training import stages
from training.checkpoint import load_trained
from training.recipe import configurations, read_recipe
from training.stages import repeat
from training.validation import Validation

RECIPES = sorted((Path(stages.__file__).parent / "recipes").glob("*.yaml"))
CHECKPOINTS = Path(stages.__file__).parent / "checkpoints"
TINY = tiny_config(dataset="folder", augment={"pose": 0.3, "jpeg": 0, "occlusion": 0}).model_dump(mode="json")
del TINY["seed"]
THREE: list[dict[str, Any]] = [
    {"name": "start", "preset": "compact", "settings": TINY | {"epochs": 1}},
    {"name": "seeds", "like": "start", "settings": {"epochs": 2}, "start": "start", "seeds": [3, 5]},
    {"name": "mean", "average": ["seeds"]},
    {
        "name": "student",
        "like": "seeds",
        "settings": {"loss.distillation": 0.5},
        "start": "mean",
        "teachers": ["mean", "seeds"],
    },
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "faces"
    return write_class_folders(folder, {"train/happy": 24, "train/sad": 24})


@pytest.fixture
def written(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"stages": content}))
        return path

    return write


def run(recipe: Path, data: Path, out: Path, **changes: Any) -> None:
    repeat(recipe, data, out, changes=changes, device="cpu", threads=1)


def results(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out).parent): digest(path) for path in out.rglob("best.ckpt")}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_trained(path).network.state_dict()


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"stages": THREE}))
    run(folder / "recipe.yaml", data, folder / "out")
    return folder / "out"


def test_a_recipe_runs_from_its_first_stage_to_its_last(finished: Path) -> None:
    assert sorted(results(finished)) == ["mean", "seeds/seed3", "seeds/seed5", "start", "student"]
    assert load_trained(finished / "seeds/seed5").config.seed == 5
    (entry,) = json.loads((finished / "student/versions.json").read_text())
    made = results(finished)
    assert entry["weights_sha256"] == made["mean"]
    assert entry["teachers_sha256"] == [made["mean"], made["seeds/seed3"], made["seeds/seed5"]]
    (averaged,) = json.loads((finished / "mean/versions.json").read_text())
    assert averaged["averaged_sha256"] == [made["seeds/seed3"], made["seeds/seed5"]]
    assert len(json.loads((finished / "mean/average.json").read_text())) == 3


def test_an_average_has_the_mean_of_the_weights_and_statistics_of_its_own(finished: Path) -> None:
    one, two = (weights(finished / f"seeds/seed{seed}") for seed in (3, 5))
    mean = weights(finished / "mean")
    for name, value in mean.items():
        if name.endswith(("running_mean", "running_var")):
            assert value.isfinite().all()
        elif value.is_floating_point():
            torch.testing.assert_close(value, (one[name] + two[name]) / 2, msg=name)
    statistics = next(name for name in mean if name.endswith("running_var"))
    assert not torch.equal(mean[statistics], (one[statistics] + two[statistics]) / 2)


def test_a_finished_recipe_is_not_run_again(
    finished: Path,
    data: Path,
    written: Callable[[object], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    for work in ("train", "average"):
        monkeypatch.setattr(stages, work, lambda *_, **__: pytest.fail("a stage runs again"))
    run(written(THREE), data, finished)
    assert capsys.readouterr().out.count("is finished") == 5
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


class Interrupted(Exception):
    """Simulates Ctrl-C."""


@pytest.mark.parametrize("evaluation", [2, 3, 6], ids=["between", "within the seeds", "within the student"])
def test_an_interrupted_recipe_resumes_and_ends_alike(
    evaluation: int,
    finished: Path,
    data: Path,
    written: Callable[[object], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Epochs 1, 2 and 2, and 2 of the stages are evaluated in turn; one evaluation is interrupted."""
    figures, calls = Validation.figures, 0

    def interrupting(*arguments: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == evaluation:
            raise Interrupted
        return figures(*arguments)

    recipe, out = written(THREE), tmp_path / "out"
    monkeypatch.setattr(Validation, "figures", interrupting)
    with pytest.raises(Interrupted):
        run(recipe, data, out)
    run(recipe, data, out)
    assert calls == 8  # 7 epochs, one of them twice
    for name in results(finished):
        expected, found = weights(finished / name), weights(out / name)
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (
            0,
            {"settings": TINY | {"epochs": 3}},
            r"start was made from something else: settings\.epochs was 1",
        ),
        (1, {"settings": {"batch": 9}}, r"seed3 was made from .* settings\.batch was 12 and is 9"),
        (3, {"teachers": ["mean"]}, "student was made from something else: teachers_sha256 was"),
        (3, {"start": "start"}, "student was made from something else: weights_sha256 was"),
    ],
)
def test_a_changed_recipe_is_refused(
    stage: int,
    changes: dict[str, Any],
    message: str,
    finished: Path,
    data: Path,
    written: Callable[[object], Path],
) -> None:
    other = [each | changes if number == stage else each for number, each in enumerate(THREE)]
    before = results(finished)
    with pytest.raises(ValueError, match=message):
        run(written(other), data, finished)
    assert results(finished) == before


def test_other_data_and_other_settings_of_all_stages_are_refused(
    finished: Path, data: Path, written: Callable[[object], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"settings\.batch was 12 and is 6"):
        run(written(THREE), data, finished, batch=6)
    other = write_class_folders(tmp_path / "data", {"train/happy": 24, "train/sad": 23})
    with pytest.raises(ValueError, match="labels_sha256 was"):
        run(written(THREE), other, finished)


def test_a_result_that_has_changed_is_refused(
    data: Path, written: Callable[[object], Path], tmp_path: Path
) -> None:
    recipe, out = written(THREE[:1]), tmp_path / "out"
    run(recipe, data, out)
    named = digest(out / "start/best.ckpt")
    (out / "start/best.ckpt").write_bytes(b"other")
    with pytest.raises(ValueError, match=rf"best\.ckpt has the SHA-256 d9298a.*stage\.json names {named}"):
        run(recipe, data, out)


def test_the_digest_of_a_file_is_checked_before_the_first_stage(
    finished: Path, data: Path, written: Callable[[object], Path], tmp_path: Path
) -> None:
    file = tmp_path / "weights.ckpt"
    file.write_bytes((finished / "start/best.ckpt").read_bytes())
    found, named = digest(file), "0" * 64
    stage = THREE[1] | {"preset": "compact", "settings": TINY}
    del stage["like"]

    def recipe(**given: str) -> Path:
        return written([THREE[0], stage | {"start": {"file": "weights.ckpt", **given}}])

    with pytest.raises(ValueError, match=rf"weights\.ckpt has the SHA-256 {found}, .* names {named}"):
        run(recipe(sha256=named), data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"none\.ckpt is missing, .*; get it from elsewhere"):
        run(recipe(file="none.ckpt", source="elsewhere"), data, tmp_path / "out")
    run(recipe(sha256=found), data, tmp_path / "out")
    assert sorted(results(tmp_path / "out")) == ["seeds/seed3", "seeds/seed5", "start"]


def test_each_run_of_a_recipe_ends_with_its_time(
    data: Path, written: Callable[[object], Path], tmp_path: Path
) -> None:
    recipe, out = written([THREE[0], THREE[1] | {"start": "start"}]), tmp_path / "out"
    repeat(recipe, data, out, device="cpu", threads=1, minutes=1e-9)
    runs = [path.read_text().splitlines() for path in out.rglob("metrics.jsonl")]
    assert [len(epochs) for epochs in runs] == [1, 1, 1]


def test_networks_of_other_sizes_are_not_averaged(
    data: Path, written: Callable[[object], Path], tmp_path: Path
) -> None:
    other = {"name": "other", "like": "start", "settings": {"network.features": 6}}
    mean = {"name": "mean", "average": ["start", "other"]}
    with pytest.raises(ValueError, match="has another network"):
        run(written([THREE[0], other, mean]), data, tmp_path / "out")


def test_an_export_writes_a_repository_of_its_own(
    finished: Path,
    data: Path,
    written: Callable[[object], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported: list[tuple[Path, Path]] = []

    def export(network: Path, data: Path, repository: Path, *, name: str, **_: Any) -> None:
        exported.append((network, data))
        assert (repository / "yunet/manifest.json").is_file()
        (repository / name).mkdir()
        (repository / name / "manifest.json").write_text("{}")

    monkeypatch.setattr("training.export_classifier.export_classifier", export)
    recipe = written([*THREE, {"name": "models", "export": "student", "model": "mine"}])
    for _ in range(2):
        run(recipe, data, finished)
    assert exported == [(finished / "student/best.ckpt", data)]
    assert (finished / "models/mine/manifest.json").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "at least 1 item"),
        ([{"name": "a"}], "either preset or like"),
        ([{"name": "a", "preset": "compact", "like": "b"}], "either preset or like"),
        ([{"name": "a", "preset": "compacted"}], "stage a: compacted is neither a file nor a preset"),
        ([{"name": "a", "like": "b"}], "stage a: b is not an earlier training stage"),
        ([{"name": "a", "preset": "compact", "start": "b"}], "refers to b, which is not an earlier stage"),
        ([{"name": "a", "preset": "compact", "settings": {"epoch": 3}}], "stage a: epoch is not a setting"),
        ([{"name": "a", "preset": "compact", "settings": {"seed": 3}}], "which has seeds"),
        ([{"name": "a", "preset": "compact", "seeds": [1, 1]}], "seeds must differ"),
        ([{"name": "a", "preset": "compact", "settings": {"loss.distillation": 0.5}}], "need each other"),
        ([THREE[0], THREE[0]], "two stages have the name start"),
        ([*THREE[:2], {"name": "a", "like": "start", "start": "seeds"}], "seeds has several seeds"),
        ([{"name": "../a", "preset": "compact"}], "name"),
        ([THREE[0], {"name": "a", "average": ["start"], "seeds": [1]}], "seeds"),
        ([THREE[0], {"name": "a", "export": "start"}, {"name": "b", "average": ["a"]}], "which is an export"),
    ],
)
def test_a_recipe_that_does_not_fit_together_is_refused(
    content: object, message: str, written: Callable[[object], Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        configurations(read_recipe(written(content)), {})


def test_the_recipe_of_the_guide_fits_together(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs/guides/train.md").read_text()
    (tmp_path / "recipe.yaml").write_text(guide.split("```yaml\n")[1].split("```")[0])
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert [stage.name for stage in recipe.stages] == ["teacher", "seeds", "mean", "models"]
    assert configurations(recipe, {})["seeds"].loss.distillation == 0.5


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_fits_together_and_names_the_shipped_checkpoints(path: Path) -> None:
    recipe = read_recipe(path)
    assert configurations(recipe, {})
    for stage in recipe.stages:
        for file in (getattr(stage, "start", None), *getattr(stage, "teachers", ())):
            if not isinstance(file, str | None) and CHECKPOINTS.name in file.file.parts:
                assert file.located(path.parent).resolve().is_relative_to(CHECKPOINTS)


@pytest.mark.parametrize(
    ("recipe", "stage", "checkpoint"),
    [
        ("served", "network", "served"),
        ("served", "teacher", "teacher"),
        ("light", "network", "light"),
        ("labels", "network", "labels"),
        ("mobilenet", "network", "mobilenet"),
        ("long", "network", "long"),
    ],
)
def test_a_shipped_checkpoint_has_the_settings_of_its_recipe(
    recipe: str, stage: str, checkpoint: str
) -> None:
    (path,) = (path for path in RECIPES if path.stem == recipe)
    trained, described = (
        load_trained(CHECKPOINTS / checkpoint).config,
        configurations(read_recipe(path), {})[stage],
    )
    assert trained.model_copy(update={"precision": "auto"}) == described
