"""A whole training run, on a few dozen made-up images."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from typer.testing import CliRunner

from service.core.manifest import EMOTIONS
from tests.conftest import eventually
from tests.unit.training.made_up import tiny_config
from training import progress, validation
from training import train as training
from training.checkpoint import Trained, load_trained, save_trained
from training.cli import app
from training.config import EarlyStoppingConfig, RunConfig, read_config
from training.datasets.faces import Dataset, LabelledFaces, PixelPictures, one_hot
from training.lineage import Start
from training.models import Network, build
from training.models.compact import ResidualExtractor
from training.models.mixture import MixtureOfExperts
from training.progress import draw_curves
from training.rows import training_rows, validation_rows
from training.validation import Validation


def noise(count: int, seed: int) -> LabelledFaces:
    """Images of noise, half of them happy, half of them sad. These tests do not depend on what is learnt."""
    labels = np.where(np.arange(count) % 2, 1, 3)
    return LabelledFaces(
        PixelPictures(np.random.default_rng(seed).integers(0, 256, (count, 48, 48), np.uint8)),
        names=np.array([f"{seed}-{row}" for row in range(count)]),
        labels=labels,
        distributions=one_hot(labels),
        majority=labels,
        group=np.arange(count) + 1000 * seed,
    )


@pytest.fixture(scope="module")
def data() -> Iterator[Dataset]:
    with pytest.MonkeyPatch.context() as patched:
        # Bit-for-bit repetition is promised on the CPU only.
        patched.setattr(training, "choose_device", lambda *_, **__: torch.device("cpu"))
        yield Dataset("noise", EMOTIONS, EMOTIONS[:7], noise(48, 0), {"test": noise(4, 1)}, ())


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / f"{name}.ckpt", weights_only=True)
    return content


class Interrupted(Exception):
    """Simulates Ctrl-C."""


def interrupt_second_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the first epoch, and interrupt the second one near its end."""
    figures, calls = Validation.figures, 0

    def interrupting(self: Validation, network: Network) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Interrupted
        return figures(self, network)

    monkeypatch.setattr(Validation, "figures", interrupting)


def test_a_run_writes_all_its_files(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "draw_curves", draw_curves)
    run = tmp_path / "run"
    training.train(tiny_config(), data, run, threads=1)
    assert read_config(run / "config.yaml") == tiny_config()
    lines = metrics(run)
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert math.isfinite(line["loss"])
        assert line["loss"] > 0
        assert line["validation_loss"] > 0
        assert 0 <= line["validation"] <= 1
        assert 0 <= line["validation_label_head"] <= 1
    last, best = checkpoint(run), checkpoint(run, "best")
    assert last["epoch"] == 2
    scores = [(line["validation"] + line["validation_label_head"]) / 2 for line in lines]
    assert last["best"] == pytest.approx(max(scores), abs=1e-4)  # the log is rounded
    assert last["average"].keys() == best["average"].keys() == last["model"].keys()
    assert all(value.isfinite().all() for value in last["model"].values())
    assert best["epoch"] == 1 + int(np.argmax(scores))
    assert sorted(path.name for path in run.iterdir()) == [
        "best.ckpt",
        "config.yaml",
        "curves.png",
        "data.json",
        "last.ckpt",
        "metrics.jsonl",
        "tensorboard",
        "versions.json",
    ]


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.train(tiny_config(), data, whole, threads=1)
    with monkeypatch.context() as patched:
        interrupt_second_epoch(patched)
        with pytest.raises(Interrupted):
            training.train(tiny_config(), data, parts, threads=1)
    assert checkpoint(parts)["epoch"] == 1
    training.train(tiny_config(), data, parts, resume=True, threads=1)
    expected, found = checkpoint(whole), checkpoint(parts)
    assert found["epoch"] == 2
    assert [line["epoch"] for line in metrics(parts)] == [1, 2]
    for part in ("model", "average"):
        for name, value in expected[part].items():
            assert torch.equal(found[part][name], value), f"{part}: {name}"
    # Resuming a finished run changes nothing.
    before = (parts / "last.ckpt").read_bytes()
    training.train(tiny_config(), data, parts, resume=True, threads=1)
    assert (parts / "last.ckpt").read_bytes() == before
    assert len(metrics(parts)) == 2


def test_a_new_run_in_the_same_folder_starts_a_new_log(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        interrupt_second_epoch(patched)
        with pytest.raises(Interrupted):
            training.train(tiny_config(), data, run, threads=1)
    training.train(tiny_config(), data, run, threads=1)
    assert [line["epoch"] for line in metrics(run)] == [1, 2]


def test_the_best_epoch_is_kept_even_if_no_answer_is_right(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "accuracy", lambda *_: 0.0)
    training.train(tiny_config(), data, tmp_path / "run", threads=1)
    assert checkpoint(tmp_path / "run", "best")["epoch"] == 1


def test_no_validation_row_is_a_training_row(data: Dataset) -> None:
    rows, held_out = training_rows(data, tiny_config())
    assert (len(rows), len(held_out)) == (36, 12)
    assert not set(rows.group) & set(held_out.group)


def test_a_full_disk_loses_one_epoch(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, save = tmp_path / "run", Fabric.save

    def save_to_full_disk(fabric: Fabric, path: Path, state: dict[str, Any], **options: Any) -> None:
        if state["epoch"] == 2:
            Path(path).write_bytes(b"half of")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(fabric, path, state, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Fabric, "save", save_to_full_disk)
        with pytest.raises(OSError, match="No space left"):
            training.train(tiny_config(), data, run, threads=1)
    assert checkpoint(run)["epoch"] == checkpoint(run, "best")["epoch"] == 1
    assert not list(run.glob("*.partial"))
    training.train(tiny_config(), data, run, resume=True, threads=1)
    assert [line["epoch"] for line in metrics(run)] == [1, 2]


def test_a_loss_that_is_not_finite_stops_the_run(data: Dataset, tmp_path: Path) -> None:
    diverging = tiny_config(optimiser={"learning_rate": 1e30, "warmup_epochs": 0, "clip_norm": 1e30})
    with pytest.raises(FloatingPointError, match=r"optimiser\.learning_rate"):
        training.train(diverging, data, tmp_path, threads=1)
    assert not (tmp_path / "last.ckpt").exists()


def test_fewer_rows_than_a_batch_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="36 training rows do not fill one batch of 37"):
        training.train(tiny_config(batch=37), data, tmp_path, threads=1)


@pytest.fixture(scope="module")
def plain(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without the options that the tests below change."""
    run = tmp_path_factory.mktemp("plain") / "run"
    training.train(tiny_config(epochs=1, optimiser={"warmup_epochs": 0}), data, run, threads=1)
    return run


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": {"sam_radius": 0.05, "warmup_epochs": 0}},
        {"augment": {"mixup": 0.5, "cutmix": 0.5}},
        {"loss": {"rebalancing": "class_balanced"}},
        {"loss": {"rebalancing": "logit_adjusted"}},
        {"balanced_sampling": 1.0},
        {
            "optimiser": {
                "name": "adam",
                "schedule": "exponential",
                "learning_rate": 1e-3,
                "warmup_epochs": 0,
            }
        },
        {"precision": "bf16-mixed"},
    ],
    ids=lambda changes: json.dumps(changes),
)
def test_every_option_changes_the_trained_weights(
    changes: dict[str, object], data: Dataset, plain: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    config = tiny_config(**{"epochs": 1, "optimiser": {"warmup_epochs": 0}} | changes)
    training.train(config, data, changed, threads=1)
    assert math.isfinite(metrics(changed)[0]["loss"])
    before, after = checkpoint(plain)["model"], checkpoint(changed)["model"]
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("inputs", ["augmented", "clean"])
def test_a_student_follows_teachers_with_the_same_heads(inputs: str, data: Dataset, tmp_path: Path) -> None:
    runs = tmp_path / "one", tmp_path / "two"
    for seed, run in enumerate(runs):
        training.train(tiny_config(epochs=1, seed=seed), data, run, threads=1)
    # The folder of a run means its best checkpoint.
    teachers = runs[0], runs[1] / "best.ckpt"
    loss = {"distillation": 1.0, "load_balancing": 0.0, "distillation_inputs": inputs}
    student = tmp_path / "student"
    training.train(tiny_config(epochs=1, loss=loss), data, student, start=Start(teachers=teachers), threads=1)
    assert math.isfinite(metrics(student)[0]["loss"])
    (entry,) = json.loads((student / "versions.json").read_text())
    assert len(set(entry["teachers_sha256"])) == 2


@pytest.mark.parametrize(("share", "teachers"), [(0.5, ()), (0.0, ("one",))])
def test_a_teacher_and_its_share_need_each_other(
    share: float, teachers: tuple[str, ...], data: Dataset, tmp_path: Path
) -> None:
    start = Start(teachers=tuple(map(Path, teachers)))
    with pytest.raises(ValueError, match="need each other"):
        training.train(tiny_config(loss={"distillation": share}), data, tmp_path, start=start, threads=1)


def test_a_teacher_of_other_emotions_is_refused(data: Dataset, tmp_path: Path) -> None:
    training.train(tiny_config(epochs=1), data, tmp_path / "teacher", threads=1)
    seven = Dataset("seven", EMOTIONS[:7], EMOTIONS[:7], data.training, {}, ())
    with pytest.raises(
        ValueError, match=r"cannot teach this run: its emotions are .*contempt; the student's are"
    ):
        training.train(
            tiny_config(epochs=1, loss={"distillation": 0.5}),
            seven,
            tmp_path / "student",
            start=Start(teachers=(tmp_path / "teacher",)),
            threads=1,
        )


@pytest.mark.parametrize("option", ["weights", "teachers"])
def test_a_checkpoint_that_learned_from_validation_rows_is_refused(
    option: str, data: Dataset, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    training.train(tiny_config(epochs=1, validation_share=0.1), data, earlier, threads=1)
    start = Start(weights=earlier / "best.ckpt") if option == "weights" else Start(teachers=(earlier,))
    config = tiny_config(epochs=1, loss={"distillation": float(option == "teachers")})
    with pytest.raises(ValueError, match=r"its validation_share was 0\.1, this run's is 0\.25"):
        training.train(config, data, tmp_path / "run", start=start, threads=1)


def test_every_seed_keeps_the_same_rows_for_validation(data: Dataset) -> None:
    one, two = (validation_rows(data, tiny_config(seed=seed)) for seed in (0, 1))
    assert one.names.tolist() == two.names.tolist()


def test_a_run_starts_from_the_given_weights(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    training.train(tiny_config(), data, first, threads=1)
    unchanging = tiny_config(epochs=1, optimiser={"learning_rate": 1e-12, "warmup_epochs": 0})
    training.train(unchanging, data, second, start=Start(weights=first / "best.ckpt"), threads=1)
    given, kept = load_trained(first).network.state_dict(), load_trained(second).network.state_dict()
    for name, value in kept.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(value, given[name], msg=name)
    assert "matched" in capsys.readouterr().out


def test_a_wider_head_has_emotions_that_the_data_lack(data: Dataset, tmp_path: Path) -> None:
    seven = Dataset("seven", EMOTIONS[:7], (), data.training, {}, ())
    training.train(tiny_config(epochs=1, emotions=8), seven, tmp_path, threads=1)
    trained = load_trained(tmp_path)
    assert (trained.emotions, trained.label_emotions) == (EMOTIONS, ())
    with pytest.raises(ValueError, match="answers 4 emotions, and seven has 7: the network lacks anger"):
        training.train(tiny_config(emotions=4), seven, tmp_path, threads=1)


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="is not a checkpoint of a run"):
        load_trained(tmp_path)


def test_a_run_stops_when_validation_no_longer_improves(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses 2, 1, 3, 1: the third and the fourth epoch do not improve, so there is no fifth epoch."""
    losses = iter((2.0, 1.0, 3.0, 1.0))
    scored = {"validation": 0.5, "validation_label_head": 0.5}
    monkeypatch.setattr(Validation, "figures", lambda *_: {"validation_loss": next(losses), **scored})
    config = tiny_config(epochs=9, early_stopping={"patience": 2})
    training.train(config, data, tmp_path, threads=1)
    assert [line["epoch"] for line in metrics(tmp_path)] == [1, 2, 3, 4]
    assert "2 epochs without an improvement" in capsys.readouterr().out
    training.train(config, data, tmp_path, resume=True, threads=1)
    assert len(metrics(tmp_path)) == 4


def test_a_run_ends_with_its_time_and_is_validated(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(training, "update_average", lambda *arguments: steps.append(arguments[2]))
    training.train(tiny_config(epochs=9), data, tmp_path, threads=1, minutes=1e-9)
    assert steps == [0]  # of three in an epoch
    (line,) = metrics(tmp_path)
    assert line["learning_rate"] > 0
    assert "1e-09 minutes are over" in capsys.readouterr().out
    assert load_trained(tmp_path).epoch == 1


def test_tests_may_be_measured_after_every_epoch_and_choose_nothing(data: Dataset, tmp_path: Path) -> None:
    weights = []
    for measured in (False, True):
        run = tmp_path / str(measured)
        training.train(tiny_config(measure_tests=measured), data, run, threads=1)
        assert all(("test" in line) is measured for line in metrics(run))
        weights.append(load_trained(run).network.state_dict())
    assert {"test", "test_label_head", "test_loss"} < metrics(run)[0].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_accuracy_may_end_a_run_too() -> None:
    state = {"watched": -math.inf, "stale": 0}
    stopping = EarlyStoppingConfig(patience=1, monitor="accuracy")
    stale = []
    for reached in (0.5, 0.4, 0.6):
        validation.count_stale_epochs(state, {"validation_loss": 1.0, "validation": reached}, stopping)
        stale.append(state["stale"])
    assert stale == [0, 1, 0]


def test_a_run_is_not_resumed_with_other_settings(data: Dataset, tmp_path: Path) -> None:
    training.train(tiny_config(epochs=1, optimiser={"warmup_epochs": 0}), data, tmp_path, threads=1)
    changed = tiny_config(epochs=2, seed=3, optimiser={"warmup_epochs": 0, "momentum": 0.5})
    with pytest.raises(ValueError, match=r"optimiser\.momentum was 0\.9 and is 0\.5; seed was 0 and is 3"):
        training.train(changed, data, tmp_path, resume=True, threads=1)
    longer = tiny_config(epochs=2, optimiser={"warmup_epochs": 0})
    training.train(longer, data, tmp_path, resume=True, threads=1)
    assert [line["epoch"] for line in metrics(tmp_path)] == [1, 2]


def test_a_run_is_not_resumed_with_other_initial_weights(data: Dataset, plain: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=1, optimiser={"warmup_epochs": 0})
    training.train(config, data, tmp_path, threads=1)
    start = Start(weights=plain / "best.ckpt")
    with pytest.raises(ValueError, match="the initial weights are others"):
        training.train(config, data, tmp_path, start=start, resume=True, threads=1)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's compiler
def test_a_compiled_network_trains_like_a_plain_one(
    data: Dataset, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def compile_eagerly(part: torch.nn.Module) -> None:
        compiled.append(type(part))
        compile_part(part, backend="eager")

    compile_part = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    config = tiny_config(epochs=1, optimiser={"warmup_epochs": 0})
    training.train(config, data, tmp_path / "run", threads=1, compiled=True)
    assert ResidualExtractor in compiled
    assert MixtureOfExperts not in compiled
    expected, found = checkpoint(plain), checkpoint(tmp_path / "run")
    for name, value in expected["model"].items():
        torch.testing.assert_close(found["model"][name], value, msg=name)


# These tests start the command as a user does.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for row in range(48):
        path = tmp_path / "data" / "train" / ("happy", "sad")[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (48, 48), np.uint8)).save(path)
    return tmp_path / "data"


def command(folder: Path, run: Path, config: RunConfig, *options: str) -> list[str]:
    written = run.with_suffix(".yaml")
    written.write_text(json.dumps(config.model_dump(mode="json")))
    where = [str(written), "--data", str(folder), "--out", str(run)]
    return [str(Path(sys.executable).with_name("expressnet")), "train", *where, "--threads", "1", *options]


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_torchrun_trains_one_network_in_two_processes(folder: Path, tmp_path: Path) -> None:
    config = tiny_config(dataset="folder", epochs=1)
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    train = [torchrun, "--standalone", "--nproc-per-node", "2", "--no-python", "--"]
    train += command(folder, tmp_path / "run", config, "--devices", "2")
    done = subprocess.run(
        train, capture_output=True, text=True, timeout=110, env=os.environ | ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1]
    assert "MEMBER: 2/2" in done.stderr
    last = checkpoint(tmp_path / "run")
    assert all(value.isfinite().all() for value in last["model"].values())
    assert load_trained(tmp_path / "run").emotions == EMOTIONS[:4]


TWO_PROCESSES = """
import hashlib, json, os, sys
from pathlib import Path

from tests.unit.training import test_train
from tests.unit.training.made_up import tiny_config
from training import train as training
from training.datasets.faces import Dataset
from training.lineage import Start
from training.teachers import Teachers
from training.validation import Validation

folder, process = Path(sys.argv[1]), int(os.environ.get("LOCAL_RANK", 0))
figures, cache, save = Validation.figures, Teachers.cache_answers, training.save_atomically
seen = {"taught": 0, "ends": []}

def differing(self, network):
    # The first process improves in every epoch, the second one never.
    changed = -len(seen["ends"]) if process else len(seen["ends"])
    return dict.fromkeys(figures(self, network), 0.5 + changed / 100)

def counting(self, pictures, device):
    seen["taught"] += 1
    return cache(self, pictures, device)

def recording(fabric, path, state):
    tensors = [t for part in ("model", "average") if part in state for t in state[part].state_dict().values()]
    content = hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()
    seen["ends"].append([path.name, content, state.get("best")])
    save(fabric, path, state)

Validation.figures, Teachers.cache_answers, training.save_atomically = differing, counting, recording
training.Progress.record = lambda *_: None  # takes longer than to train these epochs
rows, test = test_train.noise(48, 0), {"test": test_train.noise(4, 1)}
training.train(
    tiny_config(epochs=4, loss={"distillation": 0.5, "distillation_inputs": "clean"}),
    Dataset("noise", test_train.EMOTIONS, test_train.EMOTIONS[:7], rows, test, ()),
    folder / "run",
    start=Start(teachers=(folder / "teacher.ckpt",)),
    device="cpu",
    devices=2,
    threads=1,
)
(folder / f"{process}.json").write_text(json.dumps(seen))
"""


def test_processes_that_would_disagree_decide_as_one_and_end_alike(tmp_path: Path) -> None:
    config = tiny_config()
    network = build(config.network, emotions=8, label_emotions=7)
    save_trained(Trained(network, config, EMOTIONS, EMOTIONS[:7], 1), tmp_path / "teacher.ckpt")
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "two.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(Path.cwd())},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{process}.json").read_text()) for process in (0, 1))
    # Every epoch is the best one of the first process.
    assert [name for name, *_ in first["ends"]] == ["best.ckpt", "last.ckpt"] * 4
    assert first["ends"] == second["ends"]
    assert (first["taught"], second["taught"]) == (1, 0)


@pytest.fixture
def obeys_ctrl_c() -> Iterator[None]:
    """Lets Ctrl-C end the processes of a test. Background processes of a shell ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("obeys_ctrl_c")
def test_ctrl_c_loses_one_epoch(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = tiny_config(dataset="folder", epochs=100_000)
    process = subprocess.Popen(
        command(folder, run, endless), stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
    )
    try:
        eventually(lambda: (run / "metrics.jsonl").is_file() and len(metrics(run)) >= 2, timeout_s=90)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    reached = checkpoint(run)["epoch"]
    assert reached >= len(metrics(run)) - 1
    config = endless.model_copy(update={"epochs": reached + 1})
    resumed = command(folder, run, config, "--resume", "--device", "cpu")[1:]
    assert CliRunner().invoke(app, resumed).exit_code == 0
    assert checkpoint(run)["epoch"] == reached + 1
