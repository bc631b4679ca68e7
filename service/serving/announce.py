"""Logs the declared use when the service starts."""

from __future__ import annotations

from service.compliance.deployment import Declaration, deployment
from service.telemetry.logs import log


def announce(declared: Declaration) -> None:
    """Log the declaration and the duties that follow from it."""
    if declared.purpose is None:
        log.warning("no purpose is declared", set="EXPRESSNET_PURPOSE and EXPRESSNET_JURISDICTION")
        return
    found = deployment(declared)
    log.info("declared", purpose=found.purpose, jurisdiction=found.jurisdiction, exemption=found.exemption)
    for duty in found.duties:
        log.info("duty", **duty.model_dump())
