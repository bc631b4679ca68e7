"""Calibrates a trained network on its validation rows, and writes it as a served classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from service.core.manifest import (
    Calibration,
    ClassifierManifest,
    Input,
    Metric,
    Prior,
    Training,
    VerdictRule,
)
from service.core.priors import BALANCED
from service.inference.engine import batch_sizes
from training.calibrate import SELECTIVE_ACCURACY, calibrate, with_prior
from training.checkpoint import Trained, checkpoint_file, load_trained
from training.datasets.faces import Dataset, LabelledFaces
from training.device import DeviceName, choose_device
from training.evaluation.metrics import calibration_error, figures
from training.evaluation.poor_pictures import Probe
from training.evaluation.predict import Predictions, predict
from training.evaluation.quality import choose_limits
from training.evaluation.rows import dataset_of
from training.evaluation.subgroups import recalls
from training.formats import Interface, Pair, digests, make_files
from training.framing import PhotoCropper, crop_each, measure_crop
from training.hints import fit_face_likeness, fit_occlusion
from training.models.folding import folded
from training.models.served import ServedClassifier
from training.repository import versions_of, write_model
from training.rows import training_rows

NAME = "expressnet_moe"
PARITY_TOLERANCE = 1e-4
PARITY_BATCHES = (1, 2, 3, 8, 32, 64)

# No default_queue_policy: with any of its limits, Triton fetches no calls ahead, and its batcher may sleep
# for 500 ms while the model is free. tests/system/test_triton_queue.py demonstrates this.
CONFIG = """\
name: "{name}"
platform: "pytorch_libtorch"
max_batch_size: {max_batch}
input [ {{ name: "faces__0", data_type: TYPE_UINT8, dims: [ 3, {size}, {size} ] }} ]
output [
  {{ name: "probabilities__0", data_type: TYPE_FP32, dims: [ {labels} ] }},
  {{ name: "gates__1", data_type: TYPE_FP32, dims: [ 2, {experts} ] }},
  {{ name: "occlusion__2", data_type: TYPE_FP32, dims: [ 1 ] }},
  {{ name: "face_likeness__3", data_type: TYPE_FP32, dims: [ 1 ] }}
]
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: 0
}}
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


def export_classifier(
    run: Path,
    data: Path,
    repository: Path,
    *,
    name: str = NAME,
    version: str = "1",
    max_batch_faces: int = 32,
    instances: int | None = None,
    kind: str | None = None,
    device: DeviceName = "auto",
    skip_bad: bool = False,
) -> Path:
    """Write `best.ckpt` of a run as a served classifier, and return its folder.

    Temperature, threshold and limits of quality are chosen on the run's validation rows. Nothing is measured
    on test splits: `export_figures` does that. The repository must contain the detector, which finds eyes and
    mouth in the data set's images. `version` becomes the default version; other versions stay. `kind`: of the
    data set, by default the run's. `max_batch_faces`: max faces in one call on Triton, which warms up all
    sizes that a gateway pads to.
    Raises `ModelFileError` when another version is invalid, and `RuntimeError` when a file gives other
    answers than the network, a file cannot be reproduced, or the network cannot be written as ONNX.
    """
    versions_of(repository, name)  # an invalid one is an error now, not after minutes of measuring
    trained = load_trained(run)
    network, config = trained.network, trained.config
    cropper = PhotoCropper(repository)
    dataset = dataset_of(config, trained.emotions, data, kind, skip_bad=skip_bad)
    network.to(choose_device(device))
    rows, held_out = training_rows(dataset, config)

    spec = Input(size=network.size, crop=measure_crop(rows.pictures, cropper, size=network.size))
    temperature, prior, threshold, calibrated = calibrate(predict(network, held_out), held_out, rows)
    measured = by_prior("validation", calibrated, held_out, len(dataset.label_emotions), prior, threshold)
    occlusion, occlusion_figures = fit_occlusion(network, rows, held_out)
    likeness, likeness_figures = fit_face_likeness(network, rows, held_out)
    network.cpu()
    served = ServedClassifier(folded(network), temperature, occlusion, likeness)
    files = make_files(name, served, interface(network.size))
    pair = Pair(files)
    unfolded = ServedClassifier(network, temperature, occlusion, likeness)
    differences = agreement(unfolded, pair, network.size)

    probe = Probe(pair.torchscript, spec, prior, held_out, crop_each(held_out.pictures, cropper, spec))
    validation = f"validation rows of {dataset.name}"
    manifest = ClassifierManifest(
        name=name,
        version=version,
        sha256=digests(files),
        labels=trained.emotions,
        input=spec,
        calibration=Calibration(
            temperature=temperature,
            ece_before=calibration_error(calibrated.at(1.0).probabilities, held_out.distributions).value,
            ece_after=measured["validation"]["ece"].value,
            ece_by_chance=measured["validation"]["ece_by_chance"].value,
            data=validation,
        ),
        prior=prior,
        verdict=VerdictRule(
            threshold=threshold,
            **verdict_figures("validation", measured["validation_balanced"]),
            quality=choose_limits(probe.everything(), threshold, f"{validation}, clean and corrupted"),
        ),
        metrics={
            **measured,
            "validation_occlusion": occlusion_figures,
            "validation_face_likeness": likeness_figures,
            "onnx_against_torchscript": differences,
        },
        training=_training(run, trained, dataset, len(rows), len(held_out)),
        intended_use="Names the expression that people would see in a photographed face, as statistics over "
        "many faces or as a hint to a person. It does not tell what somebody feels.",
        limits=LIMITS,
    )
    batches = batch_sizes(max_batch_faces)
    config_pbtxt = CONFIG.format(
        name=name,
        size=network.size,
        experts=calibrated.weights.shape[2],
        labels=len(trained.emotions),
        max_batch=max_batch_faces,
        preferred=", ".join(str(batch) for batch in batches if batch >= min(8, max_batch_faces)),
        warmup="".join(WARMUP.format(batch=batch, size=network.size) for batch in batches),
    )
    return write_model(repository, manifest, files, config_pbtxt, instances=instances)


LIMITS = (
    "Trained and measured on 48 x 48 px grey images from web searches, most of them posed or exaggerated; "
    "everyday faces are subtler.",
    "Contempt, disgust and fear are rare in the training data and often missed.",
    "Profiles, covered faces, strong shadows and faces under about 40 px were not measured by themselves; "
    "expect less than the figures say.",
    "Not measured by age, skin tone, sex or culture: FER-2013 carries no such labels. Expect unequal errors.",
    "An expression is not an inner state, and people express the same state differently.",
)


def by_prior(
    split: str,
    predicted: Predictions,
    rows: LabelledFaces,
    label_emotions: int,
    prior: Prior,
    threshold: float,
) -> dict[str, dict[str, Metric]]:
    """The figures and recalls of a split, with the training's prior and with `balanced`."""
    balanced = predicted._replace(probabilities=with_prior(predicted.probabilities, prior, BALANCED))
    found: dict[str, dict[str, Metric]] = {}
    for name, answers in ((split, predicted), (f"{split}_{BALANCED}", balanced)):
        found[name] = figures(answers, rows, label_emotions, threshold)
        found[f"{name}_recall"] = recalls(answers.probabilities, rows.majority)
    return found


def verdict_figures(split: str, measured: dict[str, Metric]) -> dict[str, Any]:
    """The fields of a `VerdictRule` that say what its threshold gives. measured: figures of the split."""
    return {
        "coverage": measured["coverage"].value,
        "accuracy": measured["selective_accuracy"].value,
        "data": f"chosen for {SELECTIVE_ACCURACY:.0%} selective accuracy on validation, measured on {split} "
        f"with the prior {BALANCED}",
    }


def interface(size: int) -> Interface:
    """The interface of a classifier for faces of `size` px."""
    outputs = ("probabilities__0", "gates__1", "occlusion__2", "face_likeness__3")
    return Interface(
        inputs={"faces__0": torch.zeros(2, 3, size, size, dtype=torch.uint8)},
        outputs=outputs,
        varying={name: {0: "batch"} for name in ("faces__0", *outputs)},
    )


@torch.inference_mode()
def agreement(network: nn.Module, pair: Pair, size: int) -> dict[str, Metric]:
    """The largest difference between the two files, by output.

    Raises `RuntimeError` when a file differs too much from the network, or when a row's answer depends on
    other rows.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (max(PARITY_BATCHES), 3, size, size)
    faces = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    expected = [output.numpy() for output in network(faces)]
    differences = dict.fromkeys(("probabilities", "gates", "occlusion", "face_likeness"), 0.0)
    for batch in PARITY_BATCHES:
        torchscript, onnx = pair.answers(faces[:batch])
        for name, reference, ours, theirs in zip(differences, expected, torchscript, onnx, strict=True):
            for kind, found in (("TorchScript", ours), ("ONNX", theirs)):
                difference = float(np.abs(reference[:batch] - found).max())
                if not difference <= PARITY_TOLERANCE:
                    raise RuntimeError(
                        f"{kind} differs from the network by {difference:g} in {name} of a batch of {batch}"
                    )
            differences[name] = max(differences[name], float(np.abs(ours - theirs).max()))
    samples = sum(PARITY_BATCHES)
    return {name: Metric(value=value, samples=samples) for name, value in differences.items()}


def _training(run: Path, trained: Trained, dataset: Dataset, rows: int, held_out: int) -> Training:
    versions = json.loads(checkpoint_file(run).with_name("versions.json").read_text())
    return Training(
        data=(
            f"{dataset.name}: {rows} images to train on and {held_out} for validation, copies kept on one "
            "side, copies and near-copies of the test splits removed",
            *dataset.problems,
        ),
        licences=dataset.licences,
        config={
            **trained.config.model_dump(mode="json"),
            "epoch_chosen": trained.epoch,
            "versions": versions,
        },
        commit=versions[-1]["commit"],
        seeds=(trained.config.seed,),
    )
