"""One browser and one service process for all tests of the playground.

No test here may be asynchronous: Playwright's own loop runs in this thread until the last of them is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.playground.browser import chromium, program
from tests.playground.visit import Visit, visit
from tests.system.conftest import running

Open = Callable[..., Visit]


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if program() is None:
        pytest.skip("there is no chromium")
    with chromium(tmp_path_factory.mktemp("camera")) as opened:
        yield opened


@pytest.fixture(scope="package")
def service_url(browser: Browser) -> Iterator[str]:
    with running() as served:
        yield served.url


@pytest.fixture
def open_page(browser: Browser, service_url: str) -> Iterator[Open]:
    """Opens the playground, with the options of a browser context."""
    with ExitStack() as stack:

        def opened(url: str = service_url, **context: Any) -> Visit:
            return stack.enter_context(visit(browser, url, **context))

        yield opened
