"""The training commands: `expressnet train`, `expressnet export detector` and `expressnet export classifier`.

torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
export = typer.Typer(no_args_is_help=True, help="Write models into the repository that is served.")
app.add_typer(export, name="export")

SHIPPED_CONFIG = Path(__file__).with_name("configs") / "expressnet_moe_s.yaml"

Data = Annotated[Path, typer.Option(help="Folder with fer2013.csv (or .csv.gz) and fer2013new.csv.")]
Run = Annotated[Path, typer.Option(help="Folder of the run: config, log, checkpoints.")]
Repository = Annotated[Path, typer.Option(help="Model repository in Triton's layout.")]


@app.command("train")
def train_command(
    data: Data,
    run: Run,
    config: Annotated[Path, typer.Option(help="The run's configuration.")] = SHIPPED_CONFIG,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last epoch.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's choice if absent.")] = None,
) -> None:
    """Train a classifier."""
    with _explained():
        from training.config import read_config
        from training.train import train

        train(read_config(config), data, run, resume=resume, threads=threads)


@export.command("detector")
def export_detector_command(repository: Repository = Path("model_repository")) -> None:
    """Write the face detector (MTCNN). Needs: pip install --no-deps facenet-pytorch==2.6.0"""
    with _explained():
        from training.export_detector import export_detector

        typer.echo(f"{export_detector(repository)} written")


@export.command("classifier")
def export_classifier_command(
    data: Data, run: Run, repository: Repository = Path("model_repository")
) -> None:
    """Calibrate, measure and write a trained classifier. Export the detector before."""
    with _explained():
        from training.export_classifier import export_classifier

        typer.echo(f"{export_classifier(run, data, repository)} written")


@contextmanager
def _explained() -> Iterator[None]:
    """What a user can mend is one sentence, not a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        typer.echo(
            f"expressnet: {error.name} is missing; pip install 'expressnet-service[training]'", err=True
        )
    except (OSError, ValueError) as error:
        typer.echo(f"expressnet: {error}", err=True)
    else:
        return
    raise SystemExit(1)
