"""Teachers of any size and colour, and a file of their answers in their place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import tiny_config
from training import progress
from training import train as training
from training.answers import Answers
from training.batches import Batch, Batches
from training.checkpoint import Trained, load_trained, save_trained
from training.config import RunConfig
from training.datasets.faces import Dataset, LabelledFaces, PixelPictures, one_hot
from training.images import Images
from training.lineage import Start
from training.losses import TeacherLogits
from training.models import NETWORKS, Network, Outputs, build
from training.models.outputs import head
from training.rows import Targets, training_rows
from training.teachers import Teachers, fitted, teach

CPU = torch.device("cpu")


class Brightness(Network):
    """The logits are multiples of the brightness of the left half of an image."""

    def __init__(self, factor: float, size: int = 48, channels: int = 1) -> None:
        super().__init__()
        self.factor, self.size, self.channels = factor, size, channels

    def forward(self, images: Tensor) -> Outputs:
        assert images.shape[1:] == (self.channels, self.size, self.size)
        left = self.factor * images[..., : self.size // 2].mean(dim=(1, 2, 3))
        nothing = torch.zeros(len(images), 2, 4)
        logits, label_logits = torch.stack([left, -left], 1), torch.stack([left, 2 * left], 1)
        return Outputs(logits, label_logits, nothing, nothing, left[:, None])


class Large(Network):
    """A network for RGB images of 96 px."""

    size, channels = 96, 3

    def __init__(self, _: object, emotions: int, label_emotions: int) -> None:
        super().__init__()
        self.pooled = nn.Sequential(nn.Conv2d(3, 8, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.main_head, self.label_head = head(128, emotions), head(128, label_emotions)

    def forward(self, images: Tensor) -> Outputs:
        pooled = self.pooled(images).flatten(1)
        nothing = pooled.new_zeros(len(images), 2, 4)
        return Outputs(self.main_head(pooled), self.label_head(pooled), nothing, nothing, pooled)


def made_up_faces(count: int, seed: int) -> LabelledFaces:
    """Colourful images of 96 px. Happy faces are bright, sad faces are dark."""
    labels = np.where(np.arange(count) % 2, 1, 3)
    pixels = np.random.default_rng(seed).integers(0, 128, (count, 96, 96, 3), np.uint8)
    pixels[labels == 1] += 127
    names = np.array([f"{seed}-{row}" for row in range(count)])
    return LabelledFaces(
        PixelPictures(pixels), names, labels, one_hot(labels), labels, np.arange(count) + 1000 * seed
    )


DATA = Dataset("made up", EMOTIONS, EMOTIONS[:7], made_up_faces(48, 0), {"test": made_up_faces(4, 1)}, ())


def distilling(epochs: int = 2, **changes: object) -> RunConfig:
    loss = {
        "distillation": 1.0,
        "load_balancing": 0.0,
        "distillation_inputs": changes.pop("inputs", "augmented"),
    }
    return tiny_config(**{"epochs": epochs, "loss": loss, **changes})


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two checkpoints: a network for RGB images of 96 px, and one for grey images of 48 px."""
    monkeypatch.setattr(progress, "draw_curves", lambda run: None)
    monkeypatch.setitem(NETWORKS, "attention", Large)
    paths = []
    for seed, name in enumerate(("attention", "compact")):
        torch.manual_seed(seed)
        config = tiny_config(network={"name": name} if seed == 0 else tiny_config().network.model_dump())
        network = build(config.network, emotions=8, label_emotions=7).eval()
        paths.append(tmp_path / f"{name}.ckpt")
        save_trained(Trained(network, config, EMOTIONS, EMOTIONS[:7], 1), paths[-1])
    return paths


def trained(config: RunConfig, run: Path, start: Start, data: Dataset = DATA) -> list[dict[str, float]]:
    training.train(config, data, run, start=start, device="cpu", threads=1)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(run / "last.ckpt", weights_only=True)["model"]
    return content


def test_teachers_answer_with_the_mean_of_their_logits() -> None:
    answered = Teachers([Brightness(1.0), Brightness(3.0)]).answer(torch.full((2, 1, 48, 48), 0.5))
    assert answered.main.tolist() == [[1.0, -1.0]] * 2
    assert answered.label.tolist() == [[1.0, 2.0]] * 2


def test_cached_answers_are_the_mean_of_each_image_and_its_mirror() -> None:
    half = np.zeros((3, 48, 48), np.uint8)
    half[1, :, :24] = half[2, :, 24:] = 255
    both = Teachers([Brightness(1.0), Brightness(3.0, size=24, channels=3)])
    cached = both.cache_answers(PixelPictures(half), CPU)
    assert cached.main.tolist() == [[0, 0], [1, -1], [1, -1]]
    assert cached.label.tolist() == [[0, 0], [1, 2], [1, 2]]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_the_student_fits_teachers_of_every_size_and_colour(channels: int) -> None:
    colours = torch.tensor([0.2, 0.4, 0.6])[:channels]
    images = colours.view(1, channels, 1, 1).expand(2, channels, 48, 48)
    grey = 0.2 if channels == 1 else 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    for size in (24, 48, 96):
        for wanted, expected in ((1, [grey]), (3, colours.expand(3).tolist())):
            found = fitted(images, Brightness(1.0, size, wanted))
            assert found.shape == (2, wanted, size, size)
            assert found[0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-6)


def test_clean_answers_see_the_size_and_colour_of_the_pictures() -> None:
    torch.manual_seed(0)
    large = Large(None, 8, 7).eval()
    pixels = DATA.training.pictures.read(np.arange(48), size=96, channels=3)
    images = torch.from_numpy(pixels).float() / 255
    expected = (large(images).logits + large(images.flip(3)).logits) / 2
    torch.testing.assert_close(Teachers([large]).cache_answers(DATA.training.pictures, CPU).main, expected)


def test_a_large_colour_teacher_teaches_a_small_grey_student(two: list[Path], tmp_path: Path) -> None:
    lines = trained(distilling(8), tmp_path / "run", Start(teachers=(two[0],)))
    assert load_trained(tmp_path / "run").network.size == 48
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    teacher = Teachers.load(two[:1], DATA)
    images = torch.rand(4, 1, 48, 48)
    large = torch.nn.functional.interpolate(images, (96, 96), mode="bilinear", antialias=True)
    expected = load_trained(two[0]).network(large.expand(-1, 3, -1, -1)).logits
    torch.testing.assert_close(teacher.answer(images).main, expected)


def halves(logits: TeacherLogits) -> TeacherLogits:
    return TeacherLogits(*(part.half().float() for part in logits))


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": "clean"},
        {},
        {"epochs": 3, "augment": {"views": 2}},
        {"augment": {"mixup": 0.5, "cutmix": 0.5}, "balanced_sampling": 0.5},
        {"precision": "bf16-mixed"},
    ],
    ids=json.dumps,
)
def test_a_file_of_answers_trains_like_its_teachers(
    changes: dict[str, object], two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distilling(**changes)  # type: ignore[arg-type]
    recorded = teach(config, DATA, two, tmp_path / "answers.pt", device="cpu")
    assert recorded.views == (0 if "inputs" in changes else 2)
    assert Answers.load(tmp_path / "answers.pt").logits.main.dtype == torch.float16
    # A file has 16 bits. Teachers that answer with 16 bits train the same network, bit for bit.
    for name in ("answer", "cache_answers"):
        method = getattr(Teachers, name)
        monkeypatch.setattr(Teachers, name, lambda *given, method=method: halves(method(*given)))
    trained(config, tmp_path / "live", Start(teachers=tuple(two)))
    for path in two:
        path.unlink()
    trained(config, tmp_path / "recorded", Start(answers=tmp_path / "answers.pt"))
    expected, found = weights(tmp_path / "live"), weights(tmp_path / "recorded")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    live, again = (
        json.loads((tmp_path / run / "versions.json").read_text())[0] for run in ("live", "recorded")
    )
    assert live["teachers_sha256"] == again["teachers_sha256"]
    assert (live["answers_sha256"] is None, again["answers_sha256"] is None) == (True, False)


def test_teachers_answer_each_view_once(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tensor] = []
    answer = Teachers.answer

    def counting(teachers: Teachers, images: Tensor) -> TeacherLogits:
        asked.append(images)
        return answer(teachers, images)

    monkeypatch.setattr(Teachers, "answer", counting)
    trained(distilling(6, augment={"views": 2}), tmp_path / "run", Start(teachers=tuple(two)))
    # An epoch of DATA has 3 steps.
    assert len(asked) == len({images.sum().item() for images in asked}) == 6


@pytest.mark.parametrize(("precision", "reduced"), [("32-true", False), ("bf16-mixed", True)])
def test_teachers_of_the_same_view_answer_in_the_precision_of_the_run(
    precision: str, reduced: bool, two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[tuple[bool, torch.dtype]] = []
    answer = Teachers.answer

    def noting(teachers: Teachers, images: Tensor) -> TeacherLogits:
        logits = answer(teachers, images)
        answered.append((torch.is_autocast_enabled("cpu"), logits.main.dtype))
        return logits

    monkeypatch.setattr(Teachers, "answer", noting)
    trained(distilling(1, precision=precision), tmp_path / "run", Start(teachers=tuple(two)))
    assert set(answered) == {(reduced, torch.float32)}


def batches(config: RunConfig) -> Batches:
    rows, _ = training_rows(DATA, config)
    student = build(config.network, emotions=8, label_emotions=7)
    return Batches(Images(rows.pictures, student, CPU), Targets.of(rows, DATA), config)


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return all(torch.equal(a.images, b.images) for a, b in zip(one, other, strict=True))


def test_views_repeat_whatever_the_network_draws() -> None:
    limited = batches(distilling(4, augment={"views": 2, "cutmix": 1.0}))
    unlimited = batches(distilling(4, augment={"cutmix": 1.0}))
    first, second = list(limited.of(0)), list(limited.of(1))
    torch.manual_seed(1)  # as the network leaves it
    assert same(first, list(limited.of(2)))
    assert same(first, list(unlimited.of(0)))
    assert not same(first, second)
    assert not same(first, list(unlimited.of(2)))
    assert not same(first, list(batches(distilling(4, seed=1, augment={"cutmix": 1.0})).of(0)))
    places = torch.cat([batch.places for batch in (*first, *second)])
    assert places.tolist() == list(range(72))


def test_views_do_not_change_what_the_network_draws() -> None:
    limited = batches(distilling(4, augment={"views": 2, "cutmix": 1.0}))
    torch.manual_seed(0)
    expected = torch.rand(6)
    torch.manual_seed(0)
    drawn = [torch.rand(1) for epoch in (0, 2) for _ in limited.of(epoch)]
    assert torch.equal(torch.cat(drawn), expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"batch": 6}, "batch was 12 and is 6"),
        ({"augment": {"blur": 0.9}}, r"augment\.blur was 0\.15 and is 0\.9"),
        ({"balanced_sampling": 1.0}, r"balanced_sampling was 0\.0 and is 1\.0"),
        ({"network": {"name": "attention"}}, "channels was 1 and is 3; size was 48 and is 96"),
        ({"inputs": "clean"}, "distillation_inputs was 'augmented' and is 'clean'$"),
        ({"epochs": 4}, r"the views were 2 and are 4: set augment\.views"),
        ({"validation_share": 0.5}, "rows_sha256 was"),
    ],
)
def test_answers_for_another_run_are_refused_by_name(
    changes: dict[str, object], named: str, two: list[Path], tmp_path: Path
) -> None:
    teach(distilling(), DATA, two, tmp_path / "answers.pt", device="cpu")
    with pytest.raises(ValueError, match=rf"recorded for another run: .*{named}"):
        trained(distilling(**changes), tmp_path / "run", Start(answers=tmp_path / "answers.pt"))  # type: ignore[arg-type]


def test_clean_answers_fit_runs_of_every_seed_and_network(two: list[Path], tmp_path: Path) -> None:
    answers = tmp_path / "answers.pt"
    teach(distilling(inputs="clean"), DATA, two, answers, device="cpu")
    other = distilling(3, inputs="clean", seed=5, batch=6, network={"name": "attention"})
    assert len(trained(other, tmp_path / "run", Start(answers=answers))) == 3
    relabelled = replace(DATA.training, labels=DATA.training.labels[::-1].copy())
    with pytest.raises(ValueError, match="rows_sha256 was"):
        trained(other, tmp_path / "run", Start(answers=answers), replace(DATA, training=relabelled))
    seven = replace(DATA, emotions=EMOTIONS[:7])
    with pytest.raises(ValueError, match="run: emotions was "):
        trained(other, tmp_path / "run", Start(answers=answers), seven)


def test_a_file_of_another_kind_and_two_sources_are_refused(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file of `expressnet teach`"):
        trained(distilling(), tmp_path / "run", Start(answers=two[0]))
    with pytest.raises(ValueError, match="not both"):
        trained(distilling(), tmp_path / "run", Start(teachers=tuple(two), answers=two[0]))


def test_a_teacher_of_other_labels_is_refused_by_name(two: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"attention\.ckpt cannot teach this run: its label emotions"):
        Teachers.load(two, replace(DATA, label_emotions=()))
