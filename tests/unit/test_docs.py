"""The documentation agrees with the code, and its examples are answers of this version."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from service.api.schemas import (
    BatchAnswer,
    EmotionsAnswer,
    Face,
    GroupAnswer,
    Include,
    Problem,
)
from service.compliance.deployment import Deployment, notice
from service.compliance.law import Exemption, Purpose, duties
from service.core.manifest import EMOTIONS
from service.core.query import MAX_FACES
from service.http.routes.models import Card, ModelList
from service.pipeline.groups import GROUP_STEP
from service.settings import MIN_GROUP_FACES, PREFIX, Settings
from tests.docs.reference import figures
from training.evaluation.quality import RULE

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
PAGES = [page for pattern in ("*.md", "docs/**/*.md", "examples/*.md") for page in sorted(ROOT.glob(pattern))]

PARTS = {part.value for part in Include}


def without_code(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def rows(page: str) -> list[list[str]]:
    """The cells of every row of every table."""
    lines = [line for line in without_code(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, f"there is no {heading}"
    return re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def json_blocks(page: str) -> list[str]:
    return re.findall(r"^```json\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def models_in(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """The model that an annotation holds, if any, and whether it holds a list of them."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return next((found for found in map(models_in, get_args(annotation)) if found[0]), (None, False))
    if origin is list:
        return models_in(get_args(annotation)[0])[0], True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    return None, False


def described(page: str) -> set[str]:
    """The names in the first column of every table."""
    return {name for row in rows(page) for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_named_setting_exists() -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", API))
    assert named <= {PREFIX + name.upper() for name in Settings.model_fields}


def model_of(example: Any) -> type[BaseModel] | None:
    """The model of a JSON example, found by a field that only this model has."""
    if not isinstance(example, dict):
        return None
    for key, model in (
        ("code", Problem),
        ("results", BatchAnswer),
        ("faces", EmotionsAnswer),
        ("models", ModelList),
        ("sha256", Card),
        ("group", GroupAnswer),
        ("notice", Deployment),
    ):
        if key in example:
            return model
    return None


def faces_in(example: Any) -> Iterator[dict[str, Any]]:
    """Every face of an answer, at any depth."""
    if isinstance(example, dict):
        if {"probabilities", "emotion"} <= set(example):
            yield example
        for value in example.values():
            yield from faces_in(value)
    elif isinstance(example, list):
        for value in example:
            yield from faces_in(value)


def check(model: type[BaseModel], example: Any) -> None:
    """The example is valid and has no unknown fields: validation alone would drop unknown fields."""
    answer = model.model_validate(example)
    # These models show empty fields as null, and all others omit empty fields.
    assert example == answer.model_dump(mode="json", exclude_none=model not in (Card, ModelList, Deployment))


EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{index}")
    for page in (ROOT / "README.md", ROOT / "docs" / "reference" / "api.md")
    for index, block in enumerate(json_blocks(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_json_examples_are_answers_of_this_version(block: str) -> None:
    example = json.loads(block)
    model = model_of(example)
    if model is not None:
        check(model, example)
    elif set(example) <= PARTS:
        for part, value in example.items():
            inner, _ = models_in(Face.model_fields[part].annotation)
            assert inner is not None
            check(inner, value)
    for face in faces_in(example):
        probabilities = face["probabilities"]
        assert tuple(probabilities) == EMOTIONS
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert face["confidence"] == probabilities[face["emotion"]] == max(probabilities.values())


def test_every_answer_and_every_include_has_an_example() -> None:
    examples = [json.loads(block) for block in json_blocks(API)]
    models = {model_of(example) for example in examples}
    assert models >= {EmotionsAnswer, BatchAnswer, GroupAnswer, Deployment}
    assert any(set(example) == PARTS for example in examples)


@pytest.mark.parametrize("value", ["nonsense", 1, None])
def test_an_unknown_field_in_an_example_is_found(value: object) -> None:
    example = next(e for e in map(json.loads, json_blocks(API)) if model_of(e) is EmotionsAnswer)
    check(EmotionsAnswer, example)
    example["faces"][0]["box"]["depth"] = value
    with pytest.raises(AssertionError):
        check(EmotionsAnswer, example)


def anchors(page: Path) -> set[str]:
    """The fragments by which GitHub links to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_targets_of_relative_links_exist() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, fragment = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            if fragment and target.suffix == ".md":
                assert fragment in anchors(target), f"{page.name}: {link}"


# Not `deploy`: readers create their own overlays there.
FOLDERS = "docs|examples|model_repository|service|tests|training"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_text_exist(page: Path) -> None:
    for code in re.findall(r"`([^`\n]+)`", without_code(page.read_text(encoding="utf-8"))):
        for path in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*-]*", code):
            assert next(ROOT.glob(path), None) is not None, path


@pytest.mark.parametrize("name", ["accuracy", "mean_class_accuracy", "ece", "selective_accuracy"])
def test_figures_in_the_readme_are_those_of_the_manifest(name: str) -> None:
    metric = figures.served().metrics["PublicTest_balanced"][name]
    readme = (ROOT / "README.md").read_text()
    assert (f"{metric.value:.3f}" if name == "ece" else f"{100 * metric.value:.1f} %") in readme


def test_digests_of_models_are_those_of_the_manifests() -> None:
    """The comparison of blocks with their output ignores ids and digests, so this test checks the digests."""
    known = [
        digest
        for manifest in (ROOT / "model_repository").glob("*/manifest.json")
        for digest in json.loads(manifest.read_text(encoding="utf-8"))["sha256"].values()
    ]
    for name in ("guides/command-line.md", "guides/responsible-deployment.md"):
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        found = re.findall(r"\b(?:sha256|model\.onnx|model\.pt)\W+([0-9a-f]{12,64})\b", page)
        assert found, name
        for digest in found:
            assert any(whole.startswith(digest) for whole in known), f"{name}: {digest}"


USE = (ROOT / "docs" / "explanation" / "responsible-use.md").read_text(encoding="utf-8")
DEPLOYMENT = (ROOT / "docs" / "guides" / "responsible-deployment.md").read_text(encoding="utf-8")


def test_every_purpose_is_described() -> None:
    named = [row[0].strip("`") for row in rows(section(DEPLOYMENT, "## Declare the use"))]
    assert named[2:] == list(Purpose)


DUTIES = {
    duty
    for purpose in Purpose
    for exemption in (None, Exemption.medical)
    for duty in duties(purpose, ("eu", "gb", "nz", "us", "other"), exemption)
}


def test_every_duty_is_described() -> None:
    """The page must have the articles and numbers of the duty's source."""
    text = section(USE, "## Duties") + section(USE, "## Prohibited uses")
    for duty in DUTIES:
        for part in re.findall(r"\d+/\d+|Article \d+\(\d+\)|740 ILCS 14|rule 10|Act 2018", duty.source):
            assert part in text, duty.source
        if duty.applies_from:
            day = date.fromisoformat(duty.applies_from)
            assert f"{day.day} {day:%B} {day.year}" in text or "UK" in duty.source


def test_the_notice_and_the_refusal_are_those_of_the_service() -> None:
    assert f"\n> {notice(Settings().declaration)}\n" in DEPLOYMENT
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"purpose": "workplace", "jurisdiction": "de"})
    assert f"{caught.value.errors()[0]['msg'].removeprefix('Value error, ')}." in USE


def test_the_smallest_group_and_the_steps_are_those_of_the_service() -> None:
    assert f"A number below {MIN_GROUP_FACES} is refused" in DEPLOYMENT
    assert f"steps of {GROUP_STEP}, as answered" in USE
    for page in (API, DEPLOYMENT):
        assert f"in steps of {GROUP_STEP}" in page
    assert f"{MAX_FACES} largest" in DEPLOYMENT


def test_every_field_of_an_audit_line_is_described() -> None:
    (block,) = json_blocks(section(DEPLOYMENT, "## Audit"))
    file_fields = set(json.loads(block))
    assert file_fields == described(section(DEPLOYMENT, "## Audit"))


def test_the_docs_name_what_was_not_measured() -> None:
    subgroups = figures.served().subgroups
    assert subgroups is not None
    assert f"Not known: {', '.join(subgroups.not_measured)}." in section(USE, "## Accuracy by subgroup")


def test_the_limits_of_quality_are_those_of_the_manifest() -> None:
    quality = figures.served().verdict.quality
    assert quality is not None
    page = (ROOT / "docs" / "explanation" / "quality.md").read_text(encoding="utf-8")
    assert f"\n> {quality.rule}\n" in page
    shown_limits = {(row[0], row[1]): row[2] for row in rows(section(page, "## The limits"))}
    for limit in quality.limits:
        assert shown_limits[f"`{limit.code}`", f"`{limit.measure}`"] == figures.edge(limit)


def test_the_rule_of_the_limits_is_that_of_the_code() -> None:
    quality = figures.served().verdict.quality
    assert quality is not None
    assert quality.rule == RULE
