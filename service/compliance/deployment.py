"""The deployer's declaration of use: for the model card, the log and a notice to the people in photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.compliance.law import READ_IN, Duty, Exemption, Purpose, duties

UNDECLARED = "undeclared"
UNNAMED = {Purpose.personal: "private use", Purpose.other: "[what for]", None: "[what for]"}


@dataclass(frozen=True, slots=True)
class Declaration:
    """The deployer's settings; None if not set."""

    purpose: Purpose | None = None
    jurisdiction: tuple[str, ...] = ()
    exemption: Exemption | None = None
    aggregate_only: int | None = None
    deployer: str | None = None
    contact: str | None = None


class Deployment(BaseModel):
    """The declared use, and what follows from it."""

    model_config = ConfigDict(frozen=True)

    purpose: str = Field(description="`EXPRESSNET_PURPOSE`, or `undeclared`.")
    jurisdiction: tuple[str, ...] = Field(description="`EXPRESSNET_JURISDICTION`.")
    exemption: Exemption | None = Field(description="`EXPRESSNET_EXEMPTION`, or `null`.")
    aggregate_only: int | None = Field(
        description="`EXPRESSNET_AGGREGATE_ONLY`: min number of faces in group mode, or `null`."
    )
    duties: list[Duty] = Field(
        description="Obligations of the deployer for the declared use. This is not legal advice."
    )
    duties_read_in: str = Field(description="Month in which the legal texts were read.")
    notice: str = Field(description="Text for the people in the images. Undeclared parts are in brackets.")


def deployment(declared: Declaration) -> Deployment:
    return Deployment(
        purpose=declared.purpose or UNDECLARED,
        jurisdiction=declared.jurisdiction,
        exemption=declared.exemption,
        aggregate_only=declared.aggregate_only,
        duties=[]
        if declared.purpose is None
        else duties(declared.purpose, declared.jurisdiction, declared.exemption),
        duties_read_in=READ_IN,
        notice=notice(declared),
    )


def audited(declared: Declaration) -> dict[str, Any]:
    """The fields of the declaration in each audit line."""
    return {
        "purpose": declared.purpose or UNDECLARED,
        "jurisdiction": list(declared.jurisdiction),
        "exemption": declared.exemption,
        "aggregate_only": declared.aggregate_only,
    }


def notice(declared: Declaration) -> str:
    """A notice in plain words. Brackets mark undeclared facts, to be filled in."""
    purpose = UNNAMED.get(declared.purpose) or str(declared.purpose).replace("_", " ")
    group = (
        ""
        if declared.aggregate_only is None
        else f" Only averages over the faces of at least {declared.aggregate_only} people are passed on."
    )
    return (
        f"{declared.deployer or '[who]'} has software look at faces in pictures here. Purpose: {purpose}. "
        "The software estimates which expression other people would see in a face, such as happiness or "
        "anger. It does not know what you feel, it does not know who you are, and it is sometimes wrong. It "
        f"keeps no picture.{group} Questions and objections: {declared.contact or '[contact]'}."
    )
