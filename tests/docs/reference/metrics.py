"""docs/reference/metrics.md, from `service/telemetry/metrics.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from service.core.seen import VERDICTS
from service.telemetry.metrics import (
    BACKGROUND_TASKS,
    CUTS,
    FRAME_OUTCOMES,
    LABELS,
    RECORDING_OUTCOMES,
    REJECTIONS,
    WEBHOOK_OUTCOMES,
    Metrics,
)
from tests.docs.reference.markdown import bullet_list, codes, page

# How a gauge combines the values of several processes, by its mode.
COMBINED = {"livesum": "the sum", "livemin": "the min", "livemax": "the max"}
# Labels whose values have descriptions, by metric and label.
VALUES: dict[tuple[str, str], Mapping[str, str]] = {
    ("expressnet_cut_connections_total", "reason"): CUTS,
    ("expressnet_background_failures_total", "task"): BACKGROUND_TASKS,
    ("expressnet_stream_frames_total", "outcome"): FRAME_OUTCOMES,
    ("expressnet_recordings_ended_total", "outcome"): RECORDING_OUTCOMES,
    ("expressnet_webhooks_total", "outcome"): WEBHOOK_OUTCOMES,
}
# Descriptions of labels that replace those of LABELS.
MEANINGS = {
    ("expressnet_stage_duration_seconds", "stage"): "A stage of the [`Server-Timing`](api.md#server-timing) "
    "header, without `total`.",
    ("expressnet_rejected_total", "reason"): "An [error code](errors.md): "
    + codes(sorted(error.code for error in REJECTIONS))
    + ".",
    ("expressnet_predictions_total", "verdict"): f"{codes(VERDICTS)}.",
}


def metrics_page() -> str:
    metrics = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    return page(
        "Metrics",
        "Every metric of `GET /metrics`, in the Prometheus text format. The usual `process_*` metrics "
        "(memory, CPU, open files) are there too.",
        "With several processes, each process answers for all of them. Counters and histograms are sums, "
        "and include replaced processes. `process_*` metrics then have the label `process`: `supervisor`, "
        "or the number of a process.",
        "In group mode, predictions, confidence and face sizes are not counted. Faces are counted only for "
        "groups with an answer.",
        *(part for metric in metrics for part in _section(metric)),
    )


def _section(metric: Any) -> Iterator[str]:
    (family,) = metric.describe()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    yield f"## {name}"
    yield family.documentation
    facts = [f"Type: {family.type}"]
    if family.type == "gauge":
        facts.append(f"Several processes: {COMBINED[metric._multiprocess_mode]}")
    if family.type == "histogram":
        facts.append(f"Buckets: {codes(f'{bound:g}' for bound in metric._kwargs['buckets'])}")
    for label in metric._labelnames:
        facts.append(f"Label `{label}`: {MEANINGS.get((name, label), LABELS[label])}")
        facts += [f"    - `{value}`: {text}" for value, text in VALUES.get((name, label), {}).items()]
    yield bullet_list(facts).replace("-     - ", "    - ")
