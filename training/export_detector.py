"""Writes a published face detector as the served one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from service.manifest import Manifest, Metric, Training
from training.models.mtcnn import Mtcnn
from training.models.yunet import YuNet
from training.models.yunet_mtcnn import YuNetMtcnn
from training.repository import script, write_model

DetectorName = Literal["yunet", "yunet_mtcnn"]

# DISABLE_OPTIMIZED_EXECUTION: shapes change with every image, so profiling the first two calls makes them
# three times as long and gains nothing after.
DETECTOR_CONFIG = """\
name: "%s"
platform: "pytorch_libtorch"
max_batch_size: 0
input [
  { name: "image__0", data_type: TYPE_UINT8, dims: [ -1, -1, 3 ] },
  { name: "min_face_px__1", data_type: TYPE_FP32, dims: [ 1 ] },
  { name: "threshold__2", data_type: TYPE_FP32, dims: [ 1 ] }
]
output [
  { name: "boxes__0", data_type: TYPE_FP32, dims: [ -1, 4 ] },
  { name: "scores__1", data_type: TYPE_FP32, dims: [ -1 ] },
  { name: "landmarks__2", data_type: TYPE_FP32, dims: [ -1, 5, 2 ] }
]
dynamic_batching {
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 10000000
    allow_timeout_override: true
    max_queue_size: 64
  }
}
parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }
parameters { key: "ENABLE_WEIGHT_SHARING" value { string_value: "true" } }
model_warmup [
  {
    name: "noise_640x480"
    batch_size: 1
    count: 3
    inputs { key: "image__0" value { data_type: TYPE_UINT8 dims: [ 480, 640, 3 ] random_data: true } }
    inputs { key: "min_face_px__1" value { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } }
    inputs { key: "threshold__2" value { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } }
  }
]
"""


def export_detector(repository: Path, name: DetectorName = "yunet", *, instances: int | None = None) -> Path:
    """Write a published detector as the model of that name, once its script answers as the eager module does.

    Returns the model's folder. Raises `FileNotFoundError` when the package with its weights is not installed,
    `RuntimeError` when the answers differ or the file cannot be reproduced.
    """
    detector, training, limits = _yunet() if name == "yunet" else _yunet_mtcnn()
    difference = largest_difference(detector, script(detector))
    if difference > 1e-3:
        raise RuntimeError(f"the scripted detector differs from the eager one by {difference} px")
    manifest = Manifest(
        name=name,
        version="1",
        kind="detector",
        sha256="0" * 64,
        metrics={
            "synthetic_images": {"script_against_eager_px": Metric(value=difference, samples=len(SYNTHETIC))}
        },
        training=training,
        intended_use="Finds faces and five landmarks in photographs, to crop them for a classifier. "
        "It identifies nobody.",
        limits=(*limits, "Its misses were not measured by age, skin tone or any other group of people."),
    )
    return write_model(repository, manifest, detector, DETECTOR_CONFIG % name, instances=instances)


def _yunet() -> tuple[nn.Module, Training, tuple[str, ...]]:
    training = Training(
        data=(
            "weights of libfacedetection (Shiqi Yu et al.) as yuface 2023.5.1 carries them; YuNet (Wu et "
            "al., 2023, doi 10.1007/s11633-023-1423-y), trained on WIDER FACE",
        ),
        licences=("libfacedetection and yuface: BSD-3-Clause",),
        config={
            "smallest_face_px": YuNet.LEAST_FACE,
            "smallest_face_searched_px": YuNet.FACE,
            "searched_pixels": YuNet.PIXELS,
            "least_score": round(YuNet.SCORE**YuNet.CERTAINTY, 3),
            "overlap": YuNet.OVERLAP,
        },
    )
    limits = (
        "Faces under 12 px are never found.",
        "Masks, statues, drawings and face-like patterns may be answered as faces.",
        "Landmarks of a profile are guesses where the face hides them.",
    )
    return YuNet.published(), training, limits


def _yunet_mtcnn() -> tuple[nn.Module, Training, tuple[str, ...]]:
    _, yunet, limits = _yunet()
    training = Training(
        data=(
            *yunet.data,
            "weights of facenet-pytorch 2.6.0, ported from David Sandberg's facenet, which has them from "
            "MTCNN (Zhang et al., 2016, arXiv 1604.02878), trained on WIDER FACE and CelebA",
        ),
        licences=(*yunet.licences, "facenet-pytorch and facenet: MIT"),
        config={
            **yunet.config,
            "smaller_by_mtcnn": YuNetMtcnn.SMALLER,
            "faces_with_mtcnn_boxes": YuNetMtcnn.FACES,
            "mtcnn_thresholds": [Mtcnn.P_THRESHOLD, Mtcnn.R_THRESHOLD, Mtcnn.O_THRESHOLD],
            "mtcnn_factor": Mtcnn.FACTOR,
            "mtcnn_field_px": Mtcnn.FIELD,
            "mtcnn_cell_over_face": [Mtcnn.LEAST, Mtcnn.MOST],
        },
    )
    limits = (
        *limits,
        "Faces that MTCNN is not sure of, as many profiles, have YuNet's box, which is drawn another way.",
        f"Beyond the {YuNetMtcnn.FACES} surest faces of an image all have it.",
    )
    return YuNetMtcnn.published(), training, limits


# Height and width of the images that the script is compared on.
SYNTHETIC = ((1, 1), (1, 300), (11, 12), (97, 64), (240, 320))


@torch.inference_mode()
def largest_difference(eager: nn.Module, scripted: nn.Module) -> float:
    """Of any two numbers that the two detectors answer on blobs; infinite if they find unequal counts."""
    generator = torch.Generator().manual_seed(0)
    least = torch.tensor([12.0]), torch.tensor([0.0])
    worst = 0.0
    for height, width in SYNTHETIC:
        coarse = torch.rand(1, 3, max(height // 8, 1), max(width // 8, 1), generator=generator)
        image = (nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255)[0]
        pixels = image.byte().permute(1, 2, 0).contiguous()
        ours: tuple[Tensor, ...] = scripted(pixels, *least)
        for expected, found in zip(eager(pixels, *least), ours, strict=True):
            if expected.shape != found.shape:
                return float("inf")
            if expected.numel():
                worst = max(worst, (expected - found).abs().max().item())
    return worst
