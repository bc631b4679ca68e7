"""`make docs` builds every page without a warning, and no page needs another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_every_page_is_in_the_site_and_in_its_menu(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    menu = set(re.findall(r'<a href="([^"#]+)" class="md-nav__link', start))
    for page in PAGES:
        in_docs = page.is_relative_to(ROOT / "docs")
        name = page.relative_to(ROOT / "docs" if in_docs else ROOT).with_suffix(".html").as_posix()
        name = name.replace("README", "index")
        assert (site / name).exists(), page.name
        assert name in menu | {"./", "index.html"}, page.name


def test_no_page_asks_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r'<(?:script|img|iframe|source)[^>]+src="(?:https?:)?//[^"]+', text)
        asked += re.findall(
            r'<link[^>]+rel="(?:stylesheet|preconnect|icon)"[^>]+href="(?:https?:)?//[^"]+', text
        )
        assert asked == [], page.name


def test_the_search_knows_the_pages(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert "Retry-After" in index
    assert "integrate.html" in index
