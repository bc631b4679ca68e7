"""Networks that teach another network: knowledge distillation (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from kornia.color import grayscale_to_rgb, rgb_to_grayscale
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from training.answers import Answers, depends_on
from training.batches import Batch, Batches
from training.checkpoint import load_trained
from training.config import RunConfig
from training.datasets.faces import Dataset, LabelledFaces, Pictures
from training.device import DeviceName, choose_device, choose_precision
from training.evaluation.predict import answer
from training.images import Images
from training.lineage import Start, digests, refuse_what_learned_validation
from training.losses import TeacherLogits
from training.models import Network, Outputs, build
from training.models.folding import folded
from training.progress import Progress
from training.rows import Targets, training_rows, widened


class Teachers(nn.Module):
    """Trained networks that answer with the mean of their logits. Each has a size and colours of its own."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, paths: Sequence[Path], dataset: Dataset) -> Teachers:
        """Load checkpoints. Raises `ValueError` when a teacher answers other labels than the student."""
        return cls([_loaded(path, dataset) for path in paths])

    @torch.no_grad()
    def answer(self, images: Tensor) -> TeacherLogits:
        """Answers for the images of the student, float [N,C,S,S] in [0, 1]."""
        return _mean([network(fitted(images, cast(Network, network))) for network in self.networks])

    def cache_answers(self, pictures: Pictures, device: torch.device) -> TeacherLogits:
        """Answers for all pictures, the mean of each picture and its mirror, on the CPU.

        Each teacher reads the pictures in its own size and colours.
        """
        networks = [cast(Network, network).to(device) for network in self.networks]
        return _mean([answer(network, Images(pictures, network, device), flip=True) for network in networks])


def fitted(images: Tensor, network: Network) -> Tensor:
    """Images float [N,C,S,S] in the size and colours of a network. Grey images get three equal channels."""
    if images.shape[1] != network.channels:
        images = grayscale_to_rgb(images) if network.channels == 3 else rgb_to_grayscale(images)
    if images.shape[2] != network.size:
        side = (network.size, network.size)
        images = functional.interpolate(images, side, mode="bilinear", antialias=True)
    return images


def follow(
    start: Start,
    config: RunConfig,
    dataset: Dataset,
    rows: LabelledFaces,
    student: Network,
    fabric: Fabric,
) -> Callable[[Batch], TeacherLogits] | None:
    """What answers each batch of a run: teachers, their answers for clean images, or a file; None without.

    rows: the training rows. Raises `ValueError` for teachers of other labels and for answers of another run.
    """
    if start.answers is not None:
        recorded = Answers.load(start.answers)
        views = config.views if config.loss.distillation_inputs == "augmented" else 0
        recorded.refuse_others(depends_on(config, dataset, rows, student, processes=fabric.world_size), views)
        logits = recorded.logits
    elif start.teachers:
        teachers = Teachers.load(start.teachers, dataset).to(fabric.device)
        if config.loss.distillation_inputs == "augmented":
            known: dict[int, TeacherLogits] = {}

            def answer_once(batch: Batch) -> TeacherLogits:
                step = int(batch.places[0])
                if step in known:
                    return known[step]
                answers = _answer(teachers, batch, fabric)
                if config.views < config.epochs:
                    known[step] = answers
                return answers

            return answer_once
        first = fabric.is_global_zero
        cached = teachers.cache_answers(rows.pictures, fabric.device) if first else None
        logits = cast(TeacherLogits, fabric.broadcast(cached))
    else:
        return None

    def recall(batch: Batch) -> TeacherLogits:
        picked = batch.rows if config.loss.distillation_inputs == "clean" else batch.places
        return TeacherLogits(*(part[picked].to(fabric.device).float() for part in logits))

    return recall


def teach(
    config: RunConfig, dataset: Dataset, teachers: Sequence[Path], out: Path, *, device: DeviceName = "auto"
) -> Answers:
    """Write the teachers' answers for a run with this configuration, in one process.

    Raises `ValueError` for teachers of other labels, and for teachers that learned from validation rows.
    """
    start, chosen = Start(teachers=tuple(teachers)), choose_device(device, tf32=True)
    refuse_what_learned_validation(start, config)
    rows, _ = training_rows(dataset, config)
    if config.emotions is not None:
        dataset = widened(dataset, config.emotions)
    loaded = Teachers.load(teachers, dataset).to(chosen)
    student = build(
        config.network, emotions=len(dataset.emotions), label_emotions=len(dataset.label_emotions)
    )
    made_from, views = depends_on(config, dataset, rows, student), 0
    if config.loss.distillation_inputs == "clean":
        logits = loaded.cache_answers(rows.pictures, chosen)
    else:
        images, views = Images(rows.pictures, student, chosen, keep=True), config.views
        batches = Batches(images, Targets.of(rows, dataset), config, portable=True)
        epochs = Progress(out.parent, enabled=True).track(range(views), views, "views")
        precision = choose_precision(config.precision, chosen)
        fabric = Fabric(accelerator=chosen.type, devices=1, precision=precision)
        answers = (_answer(loaded, batch, fabric) for view in epochs for batch in batches.of(view))
        halves = [[part.half().cpu() for part in each] for each in answers]
        logits = TeacherLogits(*map(torch.cat, zip(*halves, strict=True)))
    recorded = Answers(logits, made_from, views, digests(start))
    recorded.save(out)
    return recorded


def _answer(teachers: Teachers, batch: Batch, fabric: Fabric) -> TeacherLogits:
    """Answers for the view of the student, in the precision of the run."""
    with fabric.autocast():
        return teachers.answer(batch.images)


def _mean(outputs: Sequence[Outputs]) -> TeacherLogits:
    return TeacherLogits(
        torch.stack([each.logits for each in outputs]).float().mean(dim=0),
        torch.stack([each.label_logits for each in outputs]).float().mean(dim=0),
    )


def _loaded(path: Path, dataset: Dataset) -> Network:
    teacher = load_trained(path)
    for what, known, own in (
        ("emotions", teacher.emotions, dataset.emotions),
        ("label emotions", teacher.label_emotions, dataset.label_emotions),
    ):
        if known != own:
            raise ValueError(
                f"{path} cannot teach this run: its {what} are {', '.join(known) or 'none'}; "
                f"the student's are {', '.join(own) or 'none'}"
            )
    return folded(teacher.network)
