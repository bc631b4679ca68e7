"""The commands of training: train, pack, teach, prepare, evaluate, compare, adapt, explain, export.

torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from service.core.errors import ModelFileError, ServiceError

app = typer.Typer()
export = typer.Typer(no_args_is_help=True, help="Export models into a model repository.")
app.add_typer(export, name="export")

SHIPPED_CHECKPOINT = Path(__file__).with_name("checkpoints") / "served"

Data = Annotated[Path, typer.Option(help="Folder of the data set: docs/reference/datasets.md.")]
Kind = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Kind of the data set: docs/reference/datasets.md lists all. The default is that of the run.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        help="Name of a test split, or held-out for the run's validation rows. The default is the first test "
        "split, and held-out without test splits."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another value of a setting, such as optimiser.learning_rate=0.01. Repeat the option for "
        "several. In a recipe, it is a setting of every stage.",
    ),
]
TEACHER = typer.Option(help="Checkpoint of a teacher. Repeat the option to average several teachers.")
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable files, and list them.")]
Checkpoint = Annotated[Path, typer.Option("--run", help="Folder of a run, or a checkpoint.")]
ShippedOr = Annotated[
    Path,
    typer.Option("--run", help="Folder of a run, or a checkpoint. The default is the shipped checkpoint."),
]
Repository = Annotated[Path, typer.Option(help="Model repository in Triton's layout.")]
ModelName = Annotated[str, typer.Option(help="Name of the model in the repository.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Where to compute. auto: a GPU if torch finds one, the CPU otherwise."),
]
Instances = Annotated[
    int | None,
    typer.Option(min=1, help="Number of instances that Triton runs on each GPU. The default is 1."),
]


@app.command("train")
def train_command(
    data: Data,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A preset: compact, paper or attention. Or a file: a recipe of stages, or a configuration.",
        ),
    ] = "compact",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run, for configuration, log and checkpoints. The default is runs/ with the "
            "name of the recipe."
        ),
    ] = None,
    set_: Set = None,
    dataset: Kind = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume after the last epoch of the run. A recipe always resumes."),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            help="State dict, checkpoint or run's folder: initial weights of the network or its backbone."
        ),
    ] = None,
    weights_kind: Annotated[
        str | None,
        typer.Option(
            help="What the weights of --init-from are, where the file does not show it: resnet50_caffe for "
            "VGGFace2's ResNet-50 with torchvision's names."
        ),
    ] = None,
    teacher: Annotated[list[Path] | None, TEACHER] = None,
    answers: Annotated[
        Path | None, typer.Option(help="File of `expressnet teach`, in the place of teachers.")
    ] = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Number of GPUs, or of CPU processes.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of CPU threads. The default is that of torch.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network. The first step then takes minutes.")
    ] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Train a network, or repeat a recipe up to its last stage."""
    with _explained():
        from training.datasets import load
        from training.lineage import Start
        from training.recipe import is_recipe
        from training.settings import assignments, configured
        from training.train import train

        file = Path(recipe)
        place = out or Path("runs") / file.stem
        if file.is_file() and is_recipe(file):
            # Only recipes need what averages and exports import.
            from training.stages import repeat

            if init_from or weights_kind or teacher or answers:
                raise ValueError("a recipe names its own initial weights and teachers")
            repeat(
                *(file, data, place),
                changes=assignments(set_ or [], dataset),
                device=device,
                devices=devices,
                threads=threads,
                compiled=compiled,
                skip_bad=skip_bad,
            )
            return
        if (place / "last.ckpt").exists() and not resume:
            raise ValueError(f"{place} has a run; --resume continues it, --out names another folder")
        config = configured(recipe, set_ or [], dataset)
        train(
            config,
            load(config.dataset, data, skip_bad=skip_bad, ferplus_votes=config.ferplus_votes),
            place,
            start=Start(init_from, weights_kind, tuple(teacher or ()), answers),
            resume=resume,
            device=device,
            devices=devices,
            threads=threads,
            compiled=compiled,
        )


@app.command("pack")
def pack_command(
    recipes: Annotated[
        list[Path], typer.Argument(metavar="RECIPE", help="Recipes of training stages. All run at once.")
    ],
    data: Annotated[Path, typer.Option(help="Folder with the CSV file of FER-2013, and FER+'s votes.")],
    out: Annotated[Path, typer.Option(help="File to write. `python3 FILE OUT` runs it.")],
    minutes: Annotated[
        float, typer.Option(min=0.001, help="Time for everything, on the other machine.")
    ] = 10,
    python: Annotated[
        str | None,
        typer.Option(
            help="Version of Python on the other machine, such as 3.12. The default is the own one."
        ),
    ] = None,
    set_: Set = None,
) -> None:
    """Pack recipes, data, code and packages into one file, to train on a machine without a network.

    The other machine needs torch and numpy. pip downloads the packages.
    """
    with _explained():
        from training.pack import install, pack
        from training.settings import assignments

        with TemporaryDirectory() as packages:
            install(Path(packages), python or f"{sys.version_info.major}.{sys.version_info.minor}")
            pack(recipes, data, out, Path(packages), minutes=minutes, changes=assignments(set_ or []))
        typer.echo(f"{out} written: {out.stat().st_size / 1e6:.1f} MB")


@app.command("teach")
def teach_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write, for train --answers.")],
    teacher: Annotated[list[Path], TEACHER],
    student: Annotated[
        str, typer.Argument(metavar="STUDENT", help="Preset or configuration file of the student's run.")
    ] = "compact",
    set_: Set = None,
    dataset: Kind = None,
    device: Device = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Record the answers of teachers, to train from them without the teachers."""
    with _explained():
        from training.datasets import load
        from training.settings import configured
        from training.teachers import teach

        config = configured(student, set_ or [], dataset)
        loaded = load(config.dataset, data, skip_bad=skip_bad, ferplus_votes=config.ferplus_votes)
        recorded = teach(config, loaded, teacher, out, device=device)
        typer.echo(f"{out} written: {len(recorded.logits.main)} answers")


@app.command("prepare")
def prepare_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the faces and their card. The same command resumes.")],
    dataset: Annotated[
        str, typer.Option(help="Kind of the data set: docs/reference/datasets.md lists all.")
    ] = "folder",
    size: Annotated[
        int | None,
        typer.Option(min=16, max=1024, help="Side of the crops in px. The default is the classifier's."),
    ] = None,
    min_face_px: Annotated[
        float, typer.Option(min=0, help="Min length of the shorter side of a face, in px of its picture.")
    ] = 32.0,
    max_tilt: Annotated[
        float, typer.Option(min=0, max=180, help="Max tilt of a face in degrees. Faces are levelled.")
    ] = 45.0,
    largest: Annotated[
        bool, typer.Option("--largest", help="Keep the largest face of a picture with several faces.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="Where the pictures are from, for the card.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the pictures, for the card and for models.")
    ] = None,
    repository: Repository = Path("model_repository"),
) -> None:
    """Find, level and crop the faces of a data set as the service does, for `--dataset prepared`."""
    with _explained():
        from training.prepare import Choice, prepare

        card = prepare(
            dataset,
            data,
            out,
            repository,
            size=size,
            choice=Choice(min_face_px, max_tilt, largest),
            source=source,
            licence=licence,
        )
        typer.echo(card.read_text())


@app.command("evaluate")
def evaluate_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for report.json, report.md and plots.")],
    run: ShippedOr = SHIPPED_CHECKPOINT,
    dataset: Kind = None,
    split: Split = None,
    robustness: Annotated[
        bool, typer.Option(help="Also measure blur, noise, darkness and other faults in 5 strengths.")
    ] = True,
    gallery: Annotated[
        bool, typer.Option(help="Also write pictures of wrong answers. They show faces of the data set.")
    ] = False,
    device: Device = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Evaluate a trained network on a test split, or on validation rows."""
    with _explained():
        from training.evaluation.evaluate import evaluate_run

        for path in evaluate_run(
            run,
            data,
            out,
            kind=dataset,
            split=split,
            robust=robustness,
            gallery=gallery,
            device=device,
            skip_bad=skip_bad,
        ):
            typer.echo(path)


@app.command("compare")
def compare_command(
    a: Annotated[
        str, typer.Argument(metavar="A", help="Run, checkpoint, or MODEL:VERSION of the repository.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The network to compare with it.")],
    data: Data,
    dataset: Kind = None,
    split: Annotated[
        str, typer.Option(help="held-out for the validation rows of both runs, or the name of a test split.")
    ] = "held-out",
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
    repository: Repository = Path("model_repository"),
    device: Device = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Compare two networks on the same rows, with the interval of each difference."""
    with _explained():
        from pydantic import TypeAdapter

        from training.evaluation.compare import Comparison, compare, markdown

        found = compare(a, b, data, repository, kind=dataset, split=split, device=device, skip_bad=skip_bad)
        typer.echo(
            TypeAdapter(Comparison).dump_json(found, indent=1).decode() if as_json else markdown(found)
        )


@app.command("adapt")
def adapt_command(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the adapted checkpoint and its report.")
    ] = None,
    run: ShippedOr = SHIPPED_CHECKPOINT,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photos without labels, to estimate the shares of the emotions for "
            "EXPRESSNET_PRIOR. The served model answers them, and nothing is trained."
        ),
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Folder of face images, to update the batch-norm statistics.")
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one folder of face images for each emotion, to fine-tune the network."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs of fine-tuning.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of fine-tuning.")] = 0.005,
    device: Device = "auto",
) -> None:
    """Adapt a trained network, or the prior of its answers, to other images."""
    with _explained():
        if prior is not None:
            if unlabelled is not None or labelled is not None or out is not None:
                raise ValueError("--prior trains nothing: it is a run of its own, without --out")
            from service.settings import read_settings
            from training.prior import estimate_prior, markdown

            typer.echo(markdown(estimate_prior(prior, read_settings(processes=1))))
            return
        if out is None:
            raise ValueError("adapt needs --out, or --prior")
        from training.adapt import adapt

        adapt(
            run,
            out,
            unlabelled=unlabelled,
            labelled=labelled,
            epochs=epochs,
            learning_rate=learning_rate,
            device=device,
        )
        typer.echo((out / "adaptation.md").read_text())


@app.command("explain")
def explain_command(
    photo: Annotated[Path, typer.Option(help="Photo with the faces to explain.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    run: ShippedOr = SHIPPED_CHECKPOINT,
    repository: Repository = Path("model_repository"),
) -> None:
    """Show how much each part of a face contributes to its emotion."""
    with _explained():
        from training.explain import explain_photo

        typer.echo(explain_photo(run, photo, out, repository))


@export.command("detector")
def export_detector_command(
    network: Annotated[
        Literal["yunet", "yunet_mtcnn"],
        typer.Argument(help="Detector to export. EXPRESSNET_DETECTOR sets the served detector."),
    ] = "yunet",
    repository: Repository = Path("model_repository"),
    instances: Instances = None,
) -> None:
    """Export a published face detector, with the weights of yuface or facenet-pytorch."""
    with _explained():
        from training.export_detector import export_detector

        typer.echo(f"{export_detector(repository, network, instances=instances)} written")


@export.command("classifier")
def export_classifier_command(
    data: Data,
    run: Checkpoint,
    dataset: Kind = None,
    name: ModelName = "expressnet_moe",
    model_version: Annotated[
        int,
        typer.Option(
            min=1, help="Version to write. It becomes the default version, and other versions stay."
        ),
    ] = 1,
    max_batch_faces: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Max number of faces in one call on Triton. More are faster on a GPU."
        ),
    ] = 32,
    instances: Instances = None,
    repository: Repository = Path("model_repository"),
    device: Device = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Calibrate a trained classifier on its validation rows, and export it. Export the detector first."""
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
            device=device,
            skip_bad=skip_bad,
        )
        typer.echo(f"{folder} written")


@export.command("figures")
def export_figures_command(
    data: Data,
    dataset: Kind = None,
    split: Annotated[
        str | None, typer.Option(help="Name of a test split. The default is the first test split.")
    ] = None,
    name: ModelName = "expressnet_moe",
    model_version: Annotated[
        int | None, typer.Option(min=1, help="Version of the model. The default is the served version.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot to write, of the accuracy by quality behind the limits.")
    ] = None,
    repository: Repository = Path("model_repository"),
    skip_bad: SkipBad = False,
) -> None:
    """Measure an exported classifier on a test split, and write the figures into its manifest."""
    with _explained():
        from training.export_figures import export_figures

        version = None if model_version is None else str(model_version)
        for line in export_figures(
            *(data, repository, name),
            version=version,
            kind=dataset,
            split=split,
            plot=plot,
            skip_bad=skip_bad,
        ):
            typer.echo(line)


@export.command("checkpoint")
def export_checkpoint_command(
    run: Checkpoint,
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")] = SHIPPED_CHECKPOINT / "best.ckpt",
) -> None:
    """Export the weights of a trained network in half precision, to adapt, explain or train further."""
    with _explained():
        import torch

        from training.checkpoint import load_trained, save_trained

        out.parent.mkdir(parents=True, exist_ok=True)
        save_trained(load_trained(run), out, weights=torch.float16)
        typer.echo(f"{out} written")


@contextmanager
def _explained() -> Iterator[None]:
    """Report an error that a user can fix in one sentence, without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            "expressnet: stopped; `train --resume`, a recipe and `prepare` continue where they were", err=True
        )
        raise SystemExit(130) from None
    except (OSError, ValueError, FloatingPointError, ModelFileError, ServiceError) as error:
        typer.echo(f"expressnet: {error}", err=True)
        raise SystemExit(1) from None
