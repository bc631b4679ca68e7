"""The shares of the emotions in other photos are estimated without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy.special import softmax
from typer.testing import CliRunner

from service.core.manifest import EMOTIONS, Prior
from service.settings import Settings
from training.cli import app
from training.datasets.faces import one_hot
from training.prior import Floats, em, estimate_prior, likelihood_ratios

LABELS = EMOTIONS[:3]
OLD = np.array([0.5, 0.3, 0.2])


def answers(shares: list[float], count: int = 4000, strength: float = 1.0) -> Floats:
    """Probabilities of a network whose training data had the shares `OLD`, for faces with other shares.

    strength: as in `Prior`: the votes of a face vary more than its label.
    """
    generator = np.random.default_rng(0)
    labels = generator.choice(3, count, p=shares)
    likelihood = generator.normal(0, 1, (count, 3)) + 1.5 * one_hot(labels, 3)
    found: Floats = softmax(strength * (1.5 * likelihood + np.log(OLD)), axis=1)
    return found


@pytest.mark.parametrize("shares", [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_other_shares_are_recovered(shares: list[float], strength: float) -> None:
    assumed = Prior(shares=dict(zip(LABELS, OLD, strict=True)), strength=strength, balanced_strength=0)
    estimate = em(likelihood_ratios(answers(shares, strength=strength), assumed, LABELS))
    assert estimate.sum() == pytest.approx(1)
    assert estimate == pytest.approx(shares, abs=0.04)


def test_the_mean_of_the_answers_is_no_estimate() -> None:
    """The answers assume the shares of the training, so their mean lies between."""
    assert answers([0.1, 0.2, 0.7]).mean(axis=0)[2] < 0.65


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    astronaut = Image.fromarray(skimage.data.astronaut())
    wide = Image.new("RGB", (1024, 512))
    for left in (0, 512):
        wide.paste(astronaut, (left, 0))
    (tmp_path / "photos" / "below").mkdir(parents=True)
    astronaut.save(tmp_path / "photos" / "one.jpg")
    wide.save(tmp_path / "photos" / "below" / "two.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


def test_the_faces_of_all_photos_count(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.prior.MIN_FACES", 3)
    estimate = estimate_prior(photos, Settings(processes=1))
    assert estimate.faces == 3
    assert estimate.shares[EMOTIONS.index("happiness")] > 0.9
    assert (estimate.low <= estimate.shares + 1e-6).all()
    assert (estimate.shares <= estimate.high + 1e-6).all()


def test_the_command_prints_the_setting(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.prior.MIN_FACES", 3)
    result = CliRunner().invoke(app, ["adapt", "--prior", str(photos)])
    assert result.exit_code == 0, result.output
    assert "3 faces" in result.stdout
    assert "| happiness | 100.0 %" in result.stdout
    assert "EXPRESSNET_PRIOR=neutral=" in result.stdout


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ([], "adapt needs --out, or --prior"),
        (["--out", "x"], "adapt needs a folder"),
        (["--prior", ".", "--out", "x"], "--prior trains nothing"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: list[str], fault: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["adapt", *(str(tmp_path / o) if o == "x" else o for o in options)])
    assert result.exit_code == 1
    assert fault in result.stderr


def test_few_faces_are_refused(photos: Path) -> None:
    result = CliRunner().invoke(app, ["adapt", "--prior", str(photos)])
    assert result.exit_code == 1
    assert "shows 3 clear faces; at least 100 are needed" in result.stderr
