"""Every file of the documentation that is generated from code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.docs import asyncapi, openapi
from tests.docs.blocks import ROOT
from tests.docs.openapi import as_text
from tests.docs.reference.commands import commands_page
from tests.docs.reference.errors import errors_page
from tests.docs.reference.fields import fields_page, manifest_page
from tests.docs.reference.figures import TABLES, bands_page, with_figures
from tests.docs.reference.metrics import metrics_page
from tests.docs.reference.settings import settings_page

_FOLDER = ROOT / "docs" / "reference"

GENERATED: dict[Path, Callable[[], str]] = {
    openapi.FILE: lambda: as_text(openapi.document()),
    asyncapi.FILE: lambda: as_text(asyncapi.document()),
    _FOLDER / "settings.md": settings_page,
    _FOLDER / "errors.md": errors_page,
    _FOLDER / "metrics.md": metrics_page,
    _FOLDER / "commands.md": commands_page,
    _FOLDER / "fields.md": fields_page,
    _FOLDER / "manifest.md": manifest_page,
    _FOLDER / "quality-bands.md": bands_page,
    **{page: partial(with_figures, page) for page in TABLES},
}
