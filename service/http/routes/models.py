"""`GET /v1/models`: the served models, from their manifests."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from service.compliance.deployment import Declaration, Deployment, deployment
from service.core.errors import NotFound
from service.core.manifest import Manifest
from service.http.examples import DETECTOR, example_of
from service.http.problems import documented


class Card(Manifest):
    """The card of a model: its manifest and, for the classifier, the declared use of this gateway."""

    deployment: Deployment | None = Field(
        None, description="The declared use, and its obligations. `null` for the detector."
    )


class ModelList(BaseModel):
    """The answer of `GET /v1/models`."""

    models: list[Card] = Field(description="The cards of the classifier and the detector.")


def models_router(manifests: list[Manifest], declaration: Declaration) -> APIRouter:
    router = APIRouter(tags=["models"])
    declared = deployment(declaration)
    example = Card(**dict(DETECTOR), deployment=None)
    cards = {
        manifest.name: Card(**dict(manifest), deployment=declared if manifest.kind == "classifier" else None)
        for manifest in manifests
    }

    @router.get(
        "/v1/models",
        operation_id="list_models",
        summary="The models that are served",
        responses=example_of(ModelList(models=[example]), nulls=True),
    )
    async def models() -> ModelList:
        return ModelList(models=list(cards.values()))

    @router.get(
        "/v1/models/{name}",
        operation_id="get_model",
        summary="One model's card",
        responses=example_of(example, nulls=True) | documented(NotFound),
    )
    async def model(name: Annotated[str, Path(examples=[DETECTOR.name])]) -> Card:
        if name not in cards:
            raise NotFound(f"no model of this name is served; the models are {', '.join(cards)}")
        return cards[name]

    return router
