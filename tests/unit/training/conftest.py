"""What all tests of training skip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from training import progress
from training.evaluation import metrics


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    """No curves and short bootstraps. Both take longer than to train a few epochs on made-up pictures."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "draw_curves", lambda run: None)
        patched.setattr(metrics, "BOOTSTRAP_DRAWS", 20)
        yield


@pytest.fixture(autouse=True)
def no_cover() -> None:
    """pytest-cov does not measure a test with a fixture of this name.

    Only the service has a required coverage. Measuring would make these tests take half as long again.
    """
