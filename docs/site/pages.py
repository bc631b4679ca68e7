"""The site has the pages of the repository's root too, and links lead where they do in the repository."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Where a page of the root is in the site.
ROOTED = {"README.md": "index.md"} | {
    name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
}
SHIM = "https://unpkg.com/iframe-worker/shim"
# Text, path and fragment of a link that leads to a file or folder.
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"^( *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, in_site in ROOTED.items():
        files.append(File.generated(config, in_site, abs_src_path=str(ROOT / name)))
    for name in sorted(_linked_files()):
        files.append(File.generated(config, f"files/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    in_repository = {there: name for name, there in ROOTED.items()}.get(here, f"docs/{here}")

    def as_in_site(link: re.Match[str]) -> str:
        text, path, fragment = link.groups()
        target = _target(in_repository, path)
        # A folder is nothing to read: its name stays.
        if (ROOT / target).is_dir():
            return text
        return (
            f"[{text}]({posixpath.relpath(_in_site(target), posixpath.dirname(here) or '.')}{fragment or ''})"
        )

    parts = FENCED.split(markdown)
    return "".join(part if index % 2 else LINK.sub(as_in_site, part) for index, part in enumerate(parts))


def on_post_build(config: MkDocsConfig) -> None:
    """No page asks another host: the one script that the theme has elsewhere is here too."""
    site = Path(config.site_dir)
    for page in site.rglob("*.html"):
        script = posixpath.relpath("site/iframe-worker.js", page.parent.relative_to(site).as_posix())
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(SHIM, script), encoding="utf-8")


def _linked_files() -> set[str]:
    """Files outside of docs/ that pages lead to: the site has copies of them."""
    found = set()
    for page in [*(ROOT / name for name in ROOTED if name.endswith(".md")), *(ROOT / "docs").rglob("*.md")]:
        for _, path, _ in LINK.findall(page.read_text(encoding="utf-8")):
            target = _target(page.relative_to(ROOT).as_posix(), path)
            if (ROOT / target).is_file() and _in_site(target).startswith("files/"):
                found.add(target)
    return found


def _target(page: str, link: str) -> str:
    """Where a link of a page leads, from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _in_site(target: str) -> str:
    if target in ROOTED:
        return ROOTED[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"files/{target}"
