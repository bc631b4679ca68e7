"""A Triton with the options of the GPU overlay, and a gateway that calls it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.deploy.compose import triton_arguments
from tests.triton.server import TritonServer, triton

# Release 26.04 added this option. The Triton of the tests is older.
UNSUPPORTED_OPTION = "--allow-client-shm=false"
# The tests set the repository, the address and the exit timeout.
SET_BY_THE_TESTS = ("--model-repository=", "--metrics-address=", "--exit-timeout-secs=")


@pytest.fixture(scope="session")
def hardened_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    arguments = triton_arguments(tmp_path_factory.mktemp("bin"))
    arguments.remove(UNSUPPORTED_OPTION)
    options = [argument for argument in arguments if not argument.startswith(SET_BY_THE_TESTS)]
    with triton(Path(Settings().model_repository), *options) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(hardened_triton: TritonServer) -> Iterator[Gateway]:
    with serving(Settings(port=0, engine="triton", triton_url=hardened_triton.url)) as served:
        yield served
