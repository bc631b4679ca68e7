"""One browser and one service process for all tests of the playground.

The tests here must not be asynchronous: the loop of Playwright runs in this thread until the last test ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.playground.browser import browser_fixture
from tests.playground.visit import Visit, visit
from tests.system.conftest import running

OpenPage = Callable[..., Visit]


browser = browser_fixture("package")


@pytest.fixture(scope="package")
def service_url(browser: Browser) -> Iterator[str]:
    with running() as served:
        yield served.url


@pytest.fixture
def open_page(browser: Browser, service_url: str) -> Iterator[OpenPage]:
    """A function that opens the playground, with the options of a browser context."""
    with ExitStack() as stack:

        def opened(url: str = service_url, **context: Any) -> Visit:
            return stack.enter_context(visit(browser, url, **context))

        yield opened
