"""Class-activation heatmaps by Captum: the parts of a face that support the answered emotion.

Grad-CAM (Selvaraju et al., 2017) weights the backbone's feature maps by their effect on the answer's logit.
It shows where the network looked, not why. The compact network's maps have only 5 x 5 cells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from service.core.manifest import Input, read_manifest
from service.settings import Settings
from training.checkpoint import Trained, load_trained
from training.datasets.faces import PixelPictures
from training.framing import PhotoCropper
from training.models import Network

MAX_FACES = 16


def heatmaps(network: Network, faces: NDArray[np.uint8], emotions: list[int]) -> NDArray[np.float32]:
    """Support for each face's emotion: uint8 [N,channels,S,S] -> float32 [N,S,S], at most 1."""
    network.eval()
    images = torch.from_numpy(faces).float() / 255

    def logits(images: Tensor) -> Tensor:
        answered: Tensor = network(images).logits
        return answered

    maps = LayerGradCam(logits, network.gradcam_layer()).attribute(
        images.requires_grad_(), target=torch.tensor(emotions), relu_attributions=True
    )
    enlarged = LayerAttribution.interpolate(maps, images.shape[2:], interpolate_mode="bilinear")[:, 0]
    peak = enlarged.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    scaled: NDArray[np.float32] = (enlarged / peak).detach().numpy()
    return scaled


def explain_photo(run: Path, photo: Path, out: Path, repository: Path) -> Path:
    """Draw every face of a photo beside its heatmap, write the picture to `out`, and return `out`.

    Faces are cropped as the gateway crops them for the repository's classifier. Raises `ValueError` when the
    photo shows no face, and `service.core.errors.InvalidImage` when the file is not an image.
    """
    trained, settings = load_trained(run), Settings()
    classifier = read_manifest(repository, settings.classifier)
    if classifier.input is None:
        raise ValueError(f"{classifier.name} is not a classifier")
    spec = Input(size=trained.network.size, crop=classifier.input.crop)
    faces = PhotoCropper(repository).crop(photo.read_bytes(), spec).faces[:MAX_FACES]
    if not len(faces):
        raise ValueError(f"{photo} shows no face")
    _draw(trained, faces, out)
    return out


def _draw(trained: Trained, aligned: NDArray[np.uint8], out: Path) -> None:
    """aligned: uint8 [N,3,S,S] RGB."""
    network = trained.network
    faces = PixelPictures(aligned.transpose(0, 2, 3, 1))
    pixels = faces.read(np.arange(len(faces)), size=network.size, channels=network.channels)
    with torch.no_grad():
        probabilities = torch.softmax(network(torch.from_numpy(pixels).float() / 255).logits, dim=1).numpy()
    answers = probabilities.argmax(axis=1)
    maps = heatmaps(network, pixels, answers.tolist())
    figure = Figure(figsize=(5.4, 2.5 * len(aligned)), layout="constrained")
    for axes, face, heatmap, row in zip(
        figure.subplots(len(aligned), 3, squeeze=False), aligned, maps, probabilities, strict=True
    ):
        picture = face.transpose(1, 2, 0)
        axes[0].imshow(picture)
        axes[1].imshow(picture)
        axes[1].imshow(heatmap, cmap="inferno", alpha=0.55, vmin=0, vmax=1)
        for plain in axes[:2]:
            plain.axis("off")
        order = np.argsort(row)[-4:]
        axes[2].barh([trained.emotions[index] for index in order], row[order], color="#0072b2")
        axes[2].set_xlim(0, 1)
        axes[2].tick_params(labelsize=7)
        axes[0].set_title(f"{trained.emotions[row.argmax()]} {row.max():.0%}", fontsize=9)
    figure.savefig(out, dpi=110)
