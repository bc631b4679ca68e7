"""`make docs`: builds the pages of the repository as a site in site/.

The site needs no server and no other host. It has the folders of the repository, so that links are the same
in both. docs/README.md is the menu.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import tomlkit
from markdown_it import MarkdownIt

from service import __version__
from tests.docs.blocks import PAGES, ROOT

INDEX = "docs/README.md"
ASSETS = Path("docs/site")
# A script that the theme loads from another host, and the copy in this repository.
SCRIPT_URL = "https://unpkg.com/iframe-worker/shim"
SCRIPT_COPY = "docs/site/iframe-worker.js"

Menu = dict[str, list[str]]


class SiteError(Exception):
    """Has one line for each broken link, and for each page that is missing in the menu."""


def build(target: Path, root: Path = ROOT, pages: list[Path] = PAGES) -> int:
    """Replaces `target` and returns the number of pages. Raises `SiteError`."""
    texts = {page.relative_to(root).as_posix(): page.read_text(encoding="utf-8") for page in pages}
    links = {(name, file) for name, text in texts.items() for file in _links(name, text)}
    menu = _menu(texts[INDEX])
    listed = {name for names in menu.values() for name in names}
    faults = [f"{name}: {file} does not exist" for name, file in sorted(links) if not (root / file).exists()]
    faults += [f"{name}: {INDEX} does not list this page" for name in texts if name not in listed]
    if faults:
        raise SiteError("\n".join(faults))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assets = [file.relative_to(root).as_posix() for file in (root / ASSETS).glob("*.*")]
        for file in {*texts, *assets, *(file for _, file in links)}:
            if (root / file).is_file():
                _copy(root / file, folder / "pages" / file)
        for page in texts:
            _copy(root / page, folder / "pages" / f"{page}.txt")
        shutil.copytree(root / ASSETS / "theme", folder / "theme")
        config = tomllib.loads((root / ASSETS / "zensical.toml").read_text(encoding="utf-8"))
        config["project"]["site_name"] += f" {__version__}"
        config["project"]["nav"] = [{title: names} for title, names in menu.items()]
        (folder / "zensical.toml").write_text(tomlkit.dumps(config), encoding="utf-8")
        _run_zensical(folder)
        for html in (folder / "site").rglob("*.html"):
            _finish(html, html.parent.relative_to(folder / "site"), root)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "site", target)
    return len(texts)


def _links(page: str, text: str) -> Iterator[str]:
    """The files of the repository that a page links to or shows."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        for child in token.children or []:
            link = str(child.attrGet("href") or child.attrGet("src") or "")
            path = link.partition("#")[0]
            if path and not re.match(r"[a-z]+:", path):
                yield posixpath.normpath(posixpath.join(posixpath.dirname(page), path))


def _menu(index: str) -> Menu:
    """The pages under each heading of the index, in their order."""
    menu: Menu = {"Start": ["README.md", INDEX]}
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, rest = section.partition("\n")
        pages = [file for file in _links(INDEX, rest) if file.endswith(".md")]
        menu[title] = list(dict.fromkeys(pages))
    return menu


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _run_zensical(folder: Path) -> None:
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        faults = re.findall(r"^Warning: (.+)\n.*\[ (\S+) \]$", output, flags=re.MULTILINE)
        raise SiteError("\n".join(f"{where}: {fault}" for fault, where in faults) or output)


def _finish(html: Path, place: Path, root: Path) -> None:
    """Replaces the script of another host by its copy, and links to folders by their text."""

    def without_folder(link: re.Match[str]) -> str:
        return link[2] if (root / place / link[1]).is_dir() else link[0]

    text = html.read_text(encoding="utf-8").replace(
        SCRIPT_URL, posixpath.relpath(SCRIPT_COPY, place.as_posix())
    )
    html.write_text(re.sub(r'<a href="([^"#:]+)">(.*?)</a>', without_folder, text), encoding="utf-8")


if __name__ == "__main__":
    site = ROOT / "site"
    try:
        print(f"{site}/index.html: {build(site)} pages")
    except SiteError as error:
        raise SystemExit(str(error)) from None
