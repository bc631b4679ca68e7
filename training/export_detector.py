"""Writes a published face detector into the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from service.core.manifest import Manifest, Metric, Training
from service.vision.drawn import drawn_face
from training.formats import Interface, Pair, digests, make_files
from training.models.mtcnn import Mtcnn
from training.models.yunet import YuNet
from training.models.yunet_mtcnn import YuNetMtcnn
from training.repository import write_model

DetectorName = Literal["yunet", "yunet_mtcnn"]

# DISABLE_OPTIMIZED_EXECUTION: shapes change with every image, so profiling gains nothing, and makes the first
# two calls three times as long.
# dynamic_batching: no calls are batched here, but only this scheduler drops cancelled calls.
# No default_queue_policy, for the reason in export_classifier.py.
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
dynamic_batching { }
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
    """Write a published detector, and check that both of its files give the same answers.

    Returns the model's folder. Raises `FileNotFoundError` when the package with its weights is not installed,
    `RuntimeError` when the answers differ or the files cannot be reproduced.
    """
    detector, training, limits = _yunet() if name == "yunet" else _yunet_mtcnn()
    files = make_files(name, detector, INTERFACE)
    manifest = Manifest(
        name=name,
        version="1",
        kind="detector",
        sha256=digests(files),
        metrics={"onnx_against_torchscript": agreement(Pair(files))},
        training=training,
        intended_use="Finds faces and five landmarks in photographs, to crop them for a classifier. "
        "It identifies nobody.",
        limits=(*limits, "Its misses were not measured by age, skin tone or any other group of people."),
    )
    return write_model(repository, manifest, files, DETECTOR_CONFIG % name, instances=instances)


def _yunet() -> tuple[nn.Module, Training, tuple[str, ...]]:
    training = Training(
        data=(
            "weights of libfacedetection (Shiqi Yu et al.) as yuface 2023.5.1 carries them; YuNet (Wu et "
            "al., 2023, doi 10.1007/s11633-023-1423-y), trained on WIDER FACE",
        ),
        licences=("libfacedetection and yuface: BSD-3-Clause",),
        config={
            "smallest_face_px": YuNet.MIN_FACE,
            "smallest_face_searched_px": YuNet.FACE,
            "searched_pixels": YuNet.PIXELS,
            "min_score": round(YuNet.SCORE**YuNet.CERTAINTY, 3),
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
            "mtcnn_cell_over_face": [Mtcnn.MIN_CELL, Mtcnn.MAX_CELL],
        },
    )
    limits = (
        *limits,
        "Faces that MTCNN is not sure of, such as many profiles, have YuNet's box, which is drawn by another "
        "rule.",
        f"Only the {YuNetMtcnn.FACES} most confident faces of an image can have MTCNN's box.",
    )
    return YuNetMtcnn.published(), training, limits


INTERFACE = Interface(
    inputs={
        "image__0": torch.zeros(240, 320, 3, dtype=torch.uint8),
        "min_face_px__1": torch.tensor([32.0]),
        "threshold__2": torch.tensor([0.9]),
    },
    outputs=("boxes__0", "scores__1", "landmarks__2"),
    varying={
        "image__0": {0: "height", 1: "width"},
        "boxes__0": {0: "faces"},
        "scores__1": {0: "faces"},
        "landmarks__2": {0: "faces"},
    },
)
# Height, width and smallest face of the images that both files are compared on.
COMPARED = (
    (1, 1, 12),
    (1, 300, 12),
    (11, 12, 12),
    (97, 64, 12),
    (240, 320, 16),
    (480, 640, 20),
    (1080, 1920, 24),
    (3000, 4000, 59),
)
MAX_PX, MAX_SCORE = 0.05, 1e-4


def agreement(pair: Pair) -> dict[str, Metric]:
    """The largest differences between the two files, on blobs and on drawn faces.

    Raises `RuntimeError` when a difference is too large.
    """
    differences = {"box_px": 0.0, "score": 0.0, "landmark_px": 0.0}
    faces = 0
    for height, width, min_face_px in COMPARED:
        for image in (_blobs(height, width), _drawn(height, width)):
            inputs = image, torch.tensor([float(min_face_px)]), torch.tensor([0.0])
            expected, found = pair.answers(*inputs)
            if len(expected[0]) != len(found[0]):
                raise RuntimeError(
                    f"TorchScript finds {len(expected[0])} faces in {width}x{height} px, ONNX {len(found[0])}"
                )
            if not len(expected[0]):
                continue
            faces += len(expected[0])
            # Matched by position: faces of equal score may come in another order.
            apart = np.abs(expected[0][:, None] - found[0][None]).max(axis=2)
            order = apart.argmin(axis=1)
            for name, ours, theirs in zip(differences, expected, found, strict=True):
                differences[name] = max(differences[name], float(np.abs(ours - theirs[order]).max()))
    for name, limit in zip(differences, (MAX_PX, MAX_SCORE, MAX_PX), strict=True):
        if differences[name] > limit:
            raise RuntimeError(f"TorchScript and ONNX differ by {differences[name]:g} in {name}")
    return {name: Metric(value=value, samples=faces) for name, value in differences.items()}


def _blobs(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, max(height // 8, 1), max(width // 8, 1), generator=generator)
    image = (nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255)[0]
    return image.byte().permute(1, 2, 0).contiguous()


def _drawn(height: int, width: int) -> Tensor:
    """Drawn faces of several sizes."""
    image = Image.new("RGB", (width, height), (120, 130, 140))
    for share in (0.9, 0.4, 0.15):
        face = drawn_face(round(share * min(height, width)))
        for left in (0, width - face.width):
            for top in (0, height - face.height):
                image.paste(face, (left, top))
    return torch.from_numpy(np.array(image))
