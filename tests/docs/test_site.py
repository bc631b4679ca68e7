"""`make docs` builds every page and refuses broken links. No page needs another host or a wide screen."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from service import __version__
from tests.docs.blocks import PAGES, ROOT
from tests.docs.site import ASSETS, INDEX, SiteError, build
from tests.playground.browser import browser_fixture

NARROW_PX = 390


def path_in_site(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix(".html").as_posix().replace("README", "index")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return folder


browser = browser_fixture("module")


def test_every_page_is_in_the_menu_and_links_to_its_source(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    menu = {os.path.normpath(link) for link in re.findall(r'<a href="([^"#]+)" class="md-nav__link', start)}
    for page in PAGES:
        name = path_in_site(page)
        assert name in menu, page.name
        link = re.search(r'<p class="source"><a href="([^"]+)"', (site / name).read_text(encoding="utf-8"))
        assert link, page.name
        assert (site / name).parent.joinpath(link[1]).read_bytes() == page.read_bytes()


def test_every_page_names_the_version_and_its_neighbours(site: Path) -> None:
    for page in PAGES:
        text = (site / path_in_site(page)).read_text(encoding="utf-8")
        assert f"ExpressNet Service {__version__}</title>" in text, page.name
        assert re.search("md-footer__link--(next|prev)", text), page.name


def test_every_page_fits_a_phone_and_calls_no_other_host(site: Path, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": NARROW_PX, "height": 844})
    requested: list[str] = []
    context.on("request", lambda request: requested.append(request.url))
    tab = context.new_page()
    for page in PAGES:
        tab.goto((site / path_in_site(page)).as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= NARROW_PX, page.name
    context.close()
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_search_works_without_a_server(site: Path, browser: Browser) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.goto((site / "index.html").as_uri())
    tab.get_by_role("button", name="Search").first.click()
    tab.get_by_role("combobox").or_(tab.get_by_role("textbox")).first.fill("Retry-After")
    tab.get_by_text(re.compile(r"\d+ results")).wait_for()
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile(r"/docs/.+\.html\?h=Retry-After"))
    context.close()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[x](nothing.md)", "docs/page.md: docs/nothing.md does not exist"),
        ("[x](../nothing.txt)", "docs/page.md: nothing.txt does not exist"),
        ("![x](nothing.png)", "docs/page.md: docs/nothing.png does not exist"),
        ("[x](README.md#nothing)", "docs/page.md:1:15: anchor does not exist"),
        ("[x](#nothing)", "docs/page.md:1:6: anchor does not exist"),
    ],
)
def test_a_broken_link_is_an_error(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(SiteError) as caught:
        build(
            tmp_path / "site",
            *small_repository(tmp_path, index="# Index\n\n## Guides\n\n[Page](page.md)\n", page=text),
        )
    assert str(caught.value) == fault


def test_a_page_that_the_index_does_not_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SiteError) as caught:
        build(tmp_path / "site", *small_repository(tmp_path, index="# Index\n", page="# Page\n"))
    assert str(caught.value) == f"docs/page.md: {INDEX} does not list this page"


def test_the_menu_is_the_index_and_a_link_to_a_folder_becomes_text(tmp_path: Path) -> None:
    index = "# Index\n\n## Guides\n\n[Page](page.md)\n"
    assert (
        build(
            tmp_path / "site",
            *small_repository(tmp_path, index, page="# Page\n\n[folder](site) and [file](site/style.css)\n"),
        )
        == 3
    )
    text = (tmp_path / "site" / "docs" / "page.html").read_text(encoding="utf-8")
    assert '<p>folder and <a href="site/style.css">file</a></p>' in text
    assert "Guides" in text


def small_repository(root: Path, index: str, page: str) -> tuple[Path, list[Path]]:
    """A repository of three pages: its folder and its pages."""
    shutil.copytree(ROOT / ASSETS, root / ASSETS)
    texts = {"README.md": "# Start\n", INDEX: index, "docs/page.md": page}
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    return root, [root / name for name in texts]
