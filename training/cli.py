"""The training commands of `expressnet`: train, evaluate, adapt, explain, export.

torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.core.errors import ModelFileError

app = typer.Typer()
export = typer.Typer(no_args_is_help=True, help="Write models into the repository that is served.")
app.add_typer(export, name="export")

CONFIGS = Path(__file__).with_name("configs")
SHIPPED_CONFIG = CONFIGS / "expressnet_moe_s.yaml"
SHIPPED_CHECKPOINT = Path(__file__).with_name("checkpoints") / "expressnet_moe_s.ckpt"

Data = Annotated[
    Path, typer.Option(help="The data set's folder; docs/reference/datasets.md has the layouts.")
]
Kind = Annotated[
    str | None,
    typer.Option("--dataset", help="fer2013, rafdb, affectnet7, affectnet8 or folder; the run's if absent."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable files out, and name them.")]
Run = Annotated[Path, typer.Option(help="Folder of the run: config, log, checkpoints.")]
Checkpoint = Annotated[Path, typer.Option("--run", help="Folder of a run, or a checkpoint.")]
ShippedOr = Annotated[
    Path, typer.Option("--run", help="Folder of a run, or a checkpoint; the shipped model's if absent.")
]
Repository = Annotated[Path, typer.Option(help="Model repository in Triton's layout.")]
Instances = Annotated[
    int | None,
    typer.Option(min=1, help="Copies that Triton runs side by side on every GPU; 1 unless told."),
]


@app.command("train")
def train_command(
    data: Data,
    run: Run,
    config: Annotated[Path, typer.Option(help="The run's configuration.")] = SHIPPED_CONFIG,
    dataset: Kind = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last epoch.")] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="State dict or checkpoint to begin with: the whole network or a backbone."),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint to distil from; several are averaged, one option for each."),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="CPU processes, or GPUs.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's choice if absent.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the configuration's.")] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train a network."""
    with _explained():
        from training.config import RunConfig, read_config
        from training.datasets import load
        from training.train import Start, train

        changes = {"dataset": dataset, "epochs": epochs}
        given = {name: value for name, value in changes.items() if value is not None}
        settled = RunConfig.model_validate({**read_config(config).model_dump(), **given})
        train(
            settled,
            load(settled.dataset, data, skip_bad=skip_bad),
            run,
            start=Start(init_from, tuple(teacher or ())),
            resume=resume,
            threads=threads,
            devices=devices,
        )


@app.command("evaluate")
def evaluate_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for report.json, report.md and pictures.")],
    run: ShippedOr = SHIPPED_CHECKPOINT,
    dataset: Kind = None,
    split: Annotated[str | None, typer.Option(help="A test split by its name; the first if absent.")] = None,
    robustness: Annotated[
        bool, typer.Option(help="Blur, noise, darkness and others, 5 strengths each.")
    ] = True,
    gallery: Annotated[
        bool, typer.Option(help="Pictures of failures: they show the data set's faces.")
    ] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Measure a trained network on a test split that nothing was chosen on."""
    with _explained():
        from training.evaluation.report import evaluate_run

        for path in evaluate_run(
            run,
            data,
            out,
            kind=dataset,
            split=split,
            robust=robustness,
            gallery=gallery,
            skip_bad=skip_bad,
        ):
            typer.echo(path)


@app.command("adapt")
def adapt_command(
    out: Annotated[Path, typer.Option(help="Folder for the adapted checkpoint and its report.")],
    run: ShippedOr = SHIPPED_CHECKPOINT,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Folder of face pictures: batch-norm statistics are measured anew.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Folder of face pictures per emotion: the network is fine-tuned.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Of fine-tuning.")] = 0.005,
) -> None:
    """Adapt a trained network to the pictures of another place, and measure what that gave."""
    with _explained():
        from training.adapt import FineTuning, adapt

        adapt(run, out, unlabelled=unlabelled, labelled=labelled, tuning=FineTuning(epochs, learning_rate))
        typer.echo((out / "adaptation.md").read_text())


@app.command("explain")
def explain_command(
    photo: Annotated[Path, typer.Option(help="Any photo; every face of it is explained.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    run: ShippedOr = SHIPPED_CHECKPOINT,
    repository: Repository = Path("model_repository"),
) -> None:
    """Show which parts of each face in a photo spoke for its emotion."""
    with _explained():
        from training.explain import explain_photo

        typer.echo(explain_photo(run, photo, out, repository))


@export.command("detector")
def export_detector_command(
    network: Annotated[
        Literal["yunet", "yunet_mtcnn"],
        typer.Argument(help="Which one; `EXPRESSNET_DETECTOR` chooses the served one."),
    ] = "yunet",
    repository: Repository = Path("model_repository"),
    instances: Instances = None,
) -> None:
    """Write a published face detector, with the weights of yuface or facenet-pytorch."""
    with _explained():
        from training.export_detector import export_detector

        typer.echo(f"{export_detector(repository, network, instances=instances)} written")


@export.command("classifier")
def export_classifier_command(
    data: Data,
    run: Checkpoint,
    dataset: Kind = None,
    name: Annotated[str, typer.Option(help="The model's name in the repository.")] = "expressnet_moe",
    model_version: Annotated[
        int, typer.Option(min=1, help="Version to write and to serve by default; others stay beside it.")
    ] = 1,
    max_batch_faces: Annotated[
        int, typer.Option(min=1, max=256, help="Most faces in one call on Triton; more pay on a GPU.")
    ] = 32,
    instances: Instances = None,
    repository: Repository = Path("model_repository"),
    skip_bad: SkipBad = False,
) -> None:
    """Calibrate, measure and write a trained classifier. Export the detector before."""
    with _explained():
        from training.export_classifier import export_classifier

        folder = export_classifier(
            run,
            data,
            repository,
            name=name,
            version=str(model_version),
            max_batch_faces=max_batch_faces,
            instances=instances,
            kind=dataset,
            skip_bad=skip_bad,
        )
        typer.echo(f"{folder} written")


@export.command("subgroups")
def export_subgroups_command(
    data: Data,
    dataset: Kind = None,
    split: Annotated[str | None, typer.Option(help="A test split by its name; the first if absent.")] = None,
    name: Annotated[str, typer.Option(help="The model's name in the repository.")] = "expressnet_moe",
    model_version: Annotated[int | None, typer.Option(min=1, help="The default version if absent.")] = None,
    repository: Repository = Path("model_repository"),
    skip_bad: SkipBad = False,
) -> None:
    """Measure a served classifier's subgroups anew, and write them into its manifest."""
    with _explained():
        from training.export_subgroups import export_subgroups

        path = export_subgroups(
            data,
            repository,
            name,
            version=None if model_version is None else str(model_version),
            kind=dataset,
            split=split,
            skip_bad=skip_bad,
        )
        typer.echo(f"{path} written")


@export.command("quality")
def export_quality_command(
    data: Data,
    dataset: Kind = None,
    name: Annotated[str, typer.Option(help="The model's name in the repository.")] = "expressnet_moe",
    model_version: Annotated[
        str | None, typer.Option(help="The model's version; the one served by default if absent.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of the bands to write.")] = None,
    repository: Repository = Path("model_repository"),
    skip_bad: SkipBad = False,
) -> None:
    """Measure what poor pictures cost a served classifier, and write its verdict's limits anew."""
    with _explained():
        from training.export_quality import export_quality

        for line in export_quality(
            data, repository, name=name, version=model_version, kind=dataset, plot=plot, skip_bad=skip_bad
        ):
            typer.echo(line)


@export.command("checkpoint")
def export_checkpoint_command(
    run: Checkpoint,
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")] = SHIPPED_CHECKPOINT,
) -> None:
    """Write a trained network for others to adapt, explain or begin with, at half its size."""
    with _explained():
        from training.checkpoint import load_trained, save_trained

        out.parent.mkdir(parents=True, exist_ok=True)
        save_trained(load_trained(run), out, halved=True)
        typer.echo(f"{out} written")


@contextmanager
def _explained() -> Iterator[None]:
    """What a user can fix is one sentence, not a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("expressnet: stopped; `train --resume` goes on after the last whole epoch", err=True)
        raise SystemExit(130) from None
    except (OSError, ValueError, FloatingPointError, ModelFileError) as error:
        typer.echo(f"expressnet: {error}", err=True)
    else:
        return
    raise SystemExit(1)
