from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.bench.figures import Figure
from tests.bench.peers import CALLERS, MODES, Mode
from tests.bench.plot import draw


@pytest.mark.parametrize("mode", MODES)
def test_the_plot_shows_the_peers_that_could_be_measured(mode: Mode, tmp_path: Path) -> None:
    figures = [
        Figure(f"{name}, {CALLERS} callers", "images/s", 2, 1, 3)
        for name in (mode.service_name, mode.fer_name)
    ]
    draw(figures, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 500


def test_a_run_without_figures_for_the_plot_is_named() -> None:
    with pytest.raises(ValueError, match="needs the part"):
        draw([], Path("plot.png"))
