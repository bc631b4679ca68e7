"""What a deployer has declared about a gateway: for its card, its start and the people in its photos."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.law import Duty, Exemption, Purpose, duties
from service.logs import log
from service.settings import Settings

UNDECLARED = "undeclared"
UNNAMED = {Purpose.personal: "private use", Purpose.other: "[what for]", None: "[what for]"}


class Deployment(BaseModel):
    """The use that was declared, and what follows from it."""

    model_config = ConfigDict(frozen=True)

    purpose: str = Field(description="`EXPRESSNET_PURPOSE`, or `undeclared`.")
    jurisdiction: tuple[str, ...]
    exemption: Exemption | None
    aggregate_only: int | None = Field(description="Least faces of a group, where only groups are answered.")
    duties: list[Duty] = Field(description="What the declared use asks of the deployer; no legal advice.")
    notice: str = Field(description="Text that a deployer may show to the people in the photos.")


def deployment(settings: Settings) -> Deployment:
    """What these settings declare."""
    return Deployment(
        purpose=settings.purpose or UNDECLARED,
        jurisdiction=settings.jurisdiction,
        exemption=settings.exemption,
        aggregate_only=settings.aggregate_only,
        duties=[]
        if settings.purpose is None
        else duties(settings.purpose, settings.jurisdiction, settings.exemption),
        notice=notice(settings),
    )


def notice(settings: Settings) -> str:
    """Plain words for people; what was not declared stands in brackets, to be filled in."""
    purpose = UNNAMED.get(settings.purpose) or str(settings.purpose).replace("_", " ")
    group = (
        ""
        if settings.aggregate_only is None
        else f" Only averages over the faces of at least {settings.aggregate_only} people are passed on."
    )
    return (
        f"{settings.deployer or '[who]'} has software look at faces in pictures here. Purpose: {purpose}. "
        "The software estimates which expression other people would see in a face, such as happiness or "
        "anger. It does not know what you feel, it does not know who you are, and it is sometimes wrong. It "
        f"keeps no picture.{group} Questions and objections: {settings.contact or '[contact]'}."
    )


def announce(settings: Settings) -> None:
    """Tell at the start what was declared and what it asks for."""
    if settings.purpose is None:
        log.warning("no purpose is declared", set="EXPRESSNET_PURPOSE and EXPRESSNET_JURISDICTION")
        return
    declared = deployment(settings)
    log.info(
        "declared",
        purpose=declared.purpose,
        jurisdiction=declared.jurisdiction,
        exemption=declared.exemption,
    )
    for duty in declared.duties:
        log.info("duty", **duty.model_dump())
