"""`evaluate_run` measures a run, and writes a report and its pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import noise, tiny_config, write_class_folders, write_fer2013
from training.checkpoint import Trained, save_trained
from training.config import RunConfig
from training.datasets import load
from training.evaluation.evaluate import evaluate_run
from training.evaluation.subgroups import recalls, subgroups
from training.models import build


@pytest.fixture(autouse=True)
def _accept_any_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.calibrate.SELECTIVE_ACCURACY", 0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    usages = ["Training"] * 40 + ["PublicTest"] * 12
    return write_fer2013(
        tmp_path_factory.mktemp("data") / "fer", ((usage, noise(n)) for n, usage in enumerate(usages))
    )


def checkpoint(folder: Path, config: RunConfig, *, emotions: int = 8, label_emotions: int = 7) -> Path:
    torch.manual_seed(0)
    network = build(config.network, emotions=emotions, label_emotions=label_emotions).eval()
    path = folder / "best.ckpt"
    save_trained(Trained(network, config, EMOTIONS[:emotions], EMOTIONS[:label_emotions], 1), path)
    return path


def test_everything_is_written_and_the_page_shows_every_picture(data: Path, tmp_path: Path) -> None:
    run = checkpoint(tmp_path, tiny_config())
    out = tmp_path / "out"
    written = evaluate_run(run, data, out, gallery=True, skip_bad=True)

    assert {path.name for path in written} == {path.name for path in out.iterdir()}
    found = json.loads((out / "report.json").read_text())
    assert found["split"] == "PublicTest"
    assert found["samples"] == 12
    assert np.sum(found["confusion"]) == 12
    assert len(found["robustness"]) == 40
    assert [len(mixture) for mixture in found["experts"]] == [2, 2]  # the data has two emotions
    assert found["figures"]["original_labels_label_head"]["samples"] == 12
    assert found["original_labels_from_votes"]["value"] == 1  # in the made-up rows, votes determine the label
    page = (out / "report.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert set(pictures) == {path.name for path in out.glob("*.png")}
    for picture in pictures:
        colours = Image.open(out / picture).convert("RGB").getcolors(1 << 24)
        assert colours is not None
        assert len(colours) > 20, picture  # drawn, not blank
    for heading in ("## By emotion", "## Experts: fused", "## Robustness"):
        assert heading in page


def test_a_report_on_a_network_without_experts_has_no_experts(tmp_path: Path) -> None:
    write_class_folders(
        tmp_path / "data", {"train/happy": 20, "train/sad": 20, "test/happy": 4, "test/sad": 4}
    )
    network = {"name": "attention", "width": 4, "depths": [1, 1, 1, 1]}
    config = tiny_config(network=network, dataset="folder")
    dataset = load("folder", tmp_path / "data")
    run = checkpoint(tmp_path, config, emotions=len(dataset.emotions), label_emotions=0)
    out = tmp_path / "out"
    evaluate_run(run, tmp_path / "data", out, robust=False)
    found = json.loads((out / "report.json").read_text())
    assert found["experts"] == [[], []]
    assert found["robustness"] == []
    assert "original_labels_label_head" not in found["figures"]
    assert not (out / "robustness.png").exists()
    assert "Experts" not in (out / "report.md").read_text()


def test_an_error_names_a_missing_split(data: Path, tmp_path: Path) -> None:
    run = checkpoint(tmp_path, tiny_config())
    with pytest.raises(ValueError, match="no split 'PrivateTest'; fer2013 has PublicTest, held-out"):
        evaluate_run(run, data, tmp_path / "out", split="PrivateTest", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_a_network_with_fewer_emotions_than_the_data_is_refused(data: Path, tmp_path: Path) -> None:
    run = checkpoint(tmp_path, tiny_config(), emotions=7, label_emotions=0)
    with pytest.raises(ValueError, match="answers 7 emotions, and fer2013 has 8: the network lacks contempt"):
        evaluate_run(run, data, tmp_path / "out", skip_bad=True)


def test_a_network_of_the_labels_is_measured_on_the_labels(data: Path, tmp_path: Path) -> None:
    """In the made-up rows, votes are for sadness where the label is anger."""
    run = checkpoint(tmp_path, tiny_config(ferplus_votes="none"), emotions=7, label_emotions=0)
    evaluate_run(run, data, tmp_path / "out", robust=False, skip_bad=True)
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    counts = {row["emotion"]: row["samples"] for row in found["by_class"]}
    assert (len(counts), counts["anger"], counts["sadness"], counts["happiness"]) == (7, 6, 0, 6)


def test_held_out_rows_are_measured_on_request(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = checkpoint(tmp_path, tiny_config())
    evaluate_run(run, data, out, split="held-out", robust=False, skip_bad=True)
    found = json.loads((out / "report.json").read_text())
    assert (found["split"], found["samples"]) == ("held-out", 10)  # a quarter of 40
    assert found["figures_without_copies"] == found["figures"]
    assert found["original_labels_from_votes"]["value"] == 1
    assert "were chosen on the same rows" in (out / "report.md").read_text()


def test_a_data_set_without_a_test_split_is_measured_on_held_out_rows(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "data", {"happy": 6, "sad": 6})
    run = checkpoint(tmp_path, tiny_config(dataset="folder"))
    evaluate_run(run, folder, tmp_path / "out", robust=False)
    assert json.loads((tmp_path / "out/report.json").read_text())["split"] == "held-out"


def test_subgroups_are_thirds_of_each_measure_of_the_images(data: Path) -> None:
    rows = load("fer2013", data, skip_bad=True).tests["PublicTest"]
    answers = np.full((len(rows), 8), 0.1, np.float32)
    answers[:, 3] = 0.3  # sadness, the majority of half of the rows
    groups = subgroups("PublicTest", answers, rows).accuracy
    for what in ("light", "contrast", "sharpness"):
        parts = [groups[f"{what}: {part}"] for part in ("low", "middle", "high")]
        assert [part.samples for part in parts] == [4, 4, 4]
        assert sum(part.value * part.samples for part in parts) == pytest.approx(6, abs=0.01)
    assert not any("agreement" in name for name in groups)  # all annotators agree on made-up rows


def test_recall_of_few_faces_has_a_wide_interval() -> None:
    answers = np.zeros((17, 8), np.float32)
    answers[:, 0] = 1
    found = recalls(answers, np.array([7] * 13 + [0] * 3 + [-1]))
    assert list(found) == ["neutral", "contempt"]
    assert (found["contempt"].value, found["contempt"].samples) == (0.0, 13)
    assert found["contempt"].interval is not None
    low, high = found["contempt"].interval
    assert low == 0
    assert high == pytest.approx(0.2281, abs=1e-4)
    assert (found["neutral"].value, found["neutral"].samples) == (1.0, 3)
