"""Measures a checkpoint on one split: a report as JSON and Markdown, and pictures."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from training.calibrate import calibrate
from training.checkpoint import load_trained
from training.device import DeviceName, choose_device
from training.evaluation import plots
from training.evaluation.predict import predict
from training.evaluation.report import Report, make_report, markdown
from training.evaluation.rows import HELD_OUT, dataset_of, rows_of, split_of
from training.models.folding import folded
from training.rows import training_rows


def evaluate_run(
    run: Path,
    data: Path,
    out: Path,
    *,
    kind: str | None = None,
    split: str | None = None,
    robust: bool = True,
    gallery: bool = False,
    device: DeviceName = "auto",
    skip_bad: bool = False,
) -> list[Path]:
    """Measure a checkpoint on one split, and return the paths of the files written into `out`.

    Temperature and threshold are chosen on the run's validation rows. kind: of the data set, by default the
    run's. split: as in `split_of`. gallery: also draw failures; they show faces of the data set, which few
    licences allow to share.
    Raises `ValueError` when the split is missing, or when the data set has emotions that the network does not
    answer.
    """
    trained = load_trained(run)
    config = trained.config
    dataset = dataset_of(config, trained.emotions, data, kind, skip_bad=skip_bad)
    split = split_of(dataset, split)
    training, held_out = training_rows(dataset, config)
    rows = held_out
    # A folded network gives the same answers in half of the time.
    network = folded(trained.network).to(choose_device(device))
    calibrated = calibrate(predict(network, held_out), held_out, training)
    if split != HELD_OUT:
        rows = rows_of(dataset, split, config)
        predicted = predict(network, rows, temperature=calibrated.temperature)
        calibrated = calibrated._replace(predicted=predicted)
    report = make_report(network, config.network.name, dataset, split, rows, calibrated, robust=robust)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_bytes(TypeAdapter(Report).dump_json(report, indent=1))
    pictures = plots.draw(report, out)
    if gallery:
        pictures.append(plots.draw_failures(calibrated.predicted, rows, network, out / "failures.png"))
    (out / "report.md").write_text(markdown(report, pictures))
    return [out / "report.json", out / "report.md", *pictures]
