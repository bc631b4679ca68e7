"""`python -m tests.docs.bands`: docs/reference/quality-bands.md, from the served manifest."""

from __future__ import annotations

from service.core.manifest import ClassifierManifest, QualityLimits, read_manifest
from service.settings import Settings
from tests.docs.blocks import ROOT

FILE = ROOT / "docs" / "reference" / "quality-bands.md"
INTRODUCTION = """\
# Bands of quality

This page lists how often the served classifier is right, by one measure of quality at a time.
The limits of quality were chosen from it. It is generated from the manifest.
[Quality and verdict](../explanation/quality.md) explains the measures and the limits.

| column | meaning |
| --- | --- |
| from, below | The values of the measure in this band. Of angles, the amount counts. |
| faces | Faces in the band. |
| accuracy | Share of right answers. |
| confidence | Mean confidence. |
| certain | Share of answers that confidence alone calls `certain`. |
| accuracy of the certain | Share of these that are right. |

"""


def document() -> str:
    manifest = read_manifest(Settings().model_repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    assert manifest.verdict.quality is not None
    return INTRODUCTION + "\n".join(tables(manifest.verdict.quality))


def tables(limits: QualityLimits) -> list[str]:
    lines = [limits.rule, ""]
    for limit in limits.limits:
        edge = "no limit"
        if limit.min is not None:
            edge = f"at least {limit.min:g}"
        if limit.max is not None:
            edge = f"at most {limit.max:g}"
        lines += [
            f"## {limit.code}: {limit.measure}, {edge}",
            "",
            "| from | below | faces | accuracy | confidence | certain | accuracy of the certain |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {b.low:.3g} | {b.high:.3g} | {b.samples} | {b.accuracy:.1%} | {b.confidence:.1%} "
                f"| {b.certain:.1%} | {b.certain_accuracy:.1%} |"
                for b in limit.bands
            ),
            "",
        ]
    return lines


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
