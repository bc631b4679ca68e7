"""One gateway process for all pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT
from tests.system.conftest import Process, running


@pytest.fixture(scope="session")
def service() -> Iterator[Process]:
    """A gateway with default settings. Blocks that need other settings have a comment `with`."""
    with running(model_repository=ROOT / "model_repository") as served:
        yield served
