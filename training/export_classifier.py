"""Calibrates a trained network, measures it on PublicTest, and writes it as the served classifier."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from service.manifest import (
    EMOTIONS,
    Calibration,
    ClassifierManifest,
    Input,
    Metric,
    Training,
    Verdict,
    read_manifest,
    verified_model_path,
)
from training.calibrate import choose_threshold, fit_temperature
from training.config import read_config
from training.datasets.fer2013 import LICENCES, SIDE_PX, FaceImages, load_fer2013, without_copies_of
from training.evaluate import Predictions, evaluate, expected_calibration_error, predict, selective
from training.framing import measure_crop, realign
from training.models import build
from training.models.served import ServedClassifier
from training.repository import script, write_model
from training.train import training_rows

NAME = "expressnet_moe"
SELECTIVE_ACCURACY = 0.9
PARITY_TOLERANCE = 1e-4
PARITY_BATCHES = (1, 2, 3, 8, 32, 64)

CONFIG = """\
name: "{name}"
platform: "pytorch_libtorch"
max_batch_size: 32
input [ {{ name: "faces__0", data_type: TYPE_UINT8, dims: [ 3, {size}, {size} ] }} ]
output [
  {{ name: "probabilities__0", data_type: TYPE_FP32, dims: [ {labels} ] }},
  {{ name: "gates__1", data_type: TYPE_FP32, dims: [ 2, {experts} ] }}
]
version_policy {{ specific {{ versions: [ 1 ] }} }}
dynamic_batching {{ preferred_batch_size: [ 8, 16, 32 ] max_queue_delay_microseconds: 0 }}
parameters {{ key: "INFERENCE_MODE" value {{ string_value: "true" }} }}
parameters {{ key: "ENABLE_WEIGHT_SHARING" value {{ string_value: "true" }} }}
{warmup}"""

WARMUP = """\
model_warmup [
  {{
    name: "faces_{batch}"
    batch_size: {batch}
    count: 3
    inputs {{
      key: "faces__0"
      value {{ data_type: TYPE_UINT8 dims: [ 3, {size}, {size} ] random_data: true }}
    }}
  }}
]
"""


def export_classifier(run: Path, data: Path, repository: Path) -> Path:
    """Write `best.ckpt` of a run as model `expressnet_moe`, and return its folder.

    Temperature and threshold come from the run's validation rows; PublicTest is only measured, after all is
    chosen. The detector must be in the repository: it measures where FER-2013 images have eyes and mouth.
    Raises `RuntimeError` when the script does not answer as the network does.
    """
    config = read_config(run / "config.yaml")
    network = build(config.network)
    checkpoint = torch.load(run / "best.ckpt", map_location="cpu", weights_only=True)
    network.load_state_dict(checkpoint["average"])
    network.eval()
    splits = load_fer2013(data)
    rows, held_out = training_rows(splits, config)

    before = predict(network, held_out.images)
    temperature = fit_temperature(before.logits, held_out.majority)
    calibrated = predict(network, held_out.images, temperature=temperature)
    threshold = choose_threshold(calibrated.probabilities, held_out.majority, SELECTIVE_ACCURACY)
    test = splits["PublicTest"]
    tested = predict(network, test.images, temperature=temperature)
    coverage, reached = selective(tested.probabilities, test.majority, threshold)

    detector = verified_model_path(repository, read_manifest(repository, "mtcnn"))
    crop = measure_crop(rows.images, detector)
    realigned, found = realign(test.images, detector, crop)
    alone = without_copies_of(test, splits["Training"])
    metrics = {
        **_named("validation", calibrated, held_out),
        **_named("publictest", tested, test),
        # Copies in Training were left out of the training rows, so these figures should hardly differ.
        **_named("publictest_without_copies", predict(network, alone.images, temperature=temperature), alone),
        # The same images cut as the gateway cuts photos, and as they are: what the crop costs.
        **_named(
            "publictest_realigned",
            predict(network, realigned, temperature=temperature),
            test.rows(found),
        ),
        **_named(
            "publictest_realigned_whole",
            predict(network, test.images[found], temperature=temperature),
            test.rows(found),
        ),
    }

    served = ServedClassifier(network, temperature)
    scripted = script(served)
    check_parity(served, scripted, SIDE_PX)
    manifest = ClassifierManifest(
        name=NAME,
        version="1",
        sha256="0" * 64,
        labels=EMOTIONS,
        input=Input(size=SIDE_PX, crop=crop),
        calibration=Calibration(
            temperature=temperature,
            ece_before=_ece(before, held_out),
            ece_after=_ece(calibrated, held_out),
            data="FER+ majority labels of the validation rows",
        ),
        verdict=Verdict(
            threshold=threshold,
            coverage=round(coverage, 4),
            accuracy=round(reached, 4),
            data=f"chosen for {SELECTIVE_ACCURACY:.0%} selective accuracy on validation, measured on "
            "PublicTest; FER+ majority labels",
        ),
        metrics=metrics,
        training=_training(run, checkpoint["epoch"], rows, held_out),
        intended_use="Names the expression that people would see in a photographed face, as statistics over "
        "many faces or as a hint to a person. It does not tell what somebody feels.",
        limits=LIMITS,
    )
    config_pbtxt = CONFIG.format(
        name=NAME,
        size=SIDE_PX,
        labels=len(EMOTIONS),
        experts=config.network.experts,
        warmup="".join(WARMUP.format(batch=batch, size=SIDE_PX) for batch in (1, 2, 4, 8, 16, 32)),
    )
    return write_model(repository, manifest, scripted, config_pbtxt)


LIMITS = (
    "Trained and measured on 48 x 48 px grey images from web searches, most of them posed or exaggerated; "
    "everyday faces are subtler.",
    "Contempt, disgust and fear are rare in the training data and often missed.",
    "Profiles, covered faces, strong shadows and faces under about 40 px were not measured by themselves; "
    "expect less than the figures say.",
    "Not measured by age, skin tone, sex or culture: FER-2013 carries no such labels. Expect unequal errors.",
    "An expression is not an inner state, and people express the same state differently.",
)


@torch.inference_mode()
def check_parity(eager: nn.Module, scripted: nn.Module, size: int) -> None:
    """Raises `RuntimeError` when the two differ, or when a row's answer depends on its neighbours."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(PARITY_BATCHES), 3, size, size)
    faces = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    expected = eager(faces)
    for batch in PARITY_BATCHES:
        for wanted, found in zip(expected, scripted(faces[:batch]), strict=True):
            difference = (wanted[:batch] - found).abs().max().item()
            if difference > PARITY_TOLERANCE:
                raise RuntimeError(f"script and network differ by {difference} in a batch of {batch}")


def _named(split: str, predicted: Predictions, rows: FaceImages) -> dict[str, dict[str, Metric]]:
    return {f"{labels}_{split}": figures for labels, figures in evaluate(predicted, rows).items()}


def _ece(predicted: Predictions, rows: FaceImages) -> float:
    labelled = rows.majority >= 0
    return round(expected_calibration_error(predicted.probabilities[labelled], rows.majority[labelled]), 4)


def _training(run: Path, epoch: int, rows: FaceImages, held_out: FaceImages) -> Training:
    config = read_config(run / "config.yaml")
    versions = json.loads((run / "versions.json").read_text())
    commit = versions.pop("commit")
    return Training(
        data=(
            f"FER-2013 Training split: {len(rows)} images to train on and {len(held_out)} for validation, "
            "copies kept on one side, copies and near-copies of PublicTest left out",
            "FER+ votes as label distributions; FER-2013's own labels on a second head that is not served",
        ),
        licences=LICENCES,
        config=config.model_dump() | {"epoch_chosen": epoch, "versions": versions},
        commit=commit,
        seeds=(config.seed,),
    )
