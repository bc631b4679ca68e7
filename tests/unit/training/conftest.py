"""What all tests of training skip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from training import progress


@pytest.fixture(scope="module", autouse=True)
def _without_curves() -> Iterator[None]:
    """Skip the curves. Drawing them takes longer than to train a few epochs on made-up pictures."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "draw_curves", lambda run: None)
        yield


@pytest.fixture(autouse=True)
def no_cover() -> None:
    """pytest-cov does not measure a test with a fixture of this name.

    Only the service has a required coverage. Measuring would make these tests take half as long again.
    """
