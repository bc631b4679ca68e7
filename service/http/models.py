"""`GET /v1/models`: what is served, out of the manifests."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from service.errors import InvalidRequest, NotFound
from service.http.problems import documented
from service.manifest import Manifest


class ModelList(BaseModel):
    """The model cards of all that this service runs."""

    models: list[Manifest]


def models_router(manifests: list[Manifest]) -> APIRouter:
    router = APIRouter(tags=["models"])
    cards = {manifest.name: manifest for manifest in manifests}

    @router.get("/v1/models", summary="The models that are served")
    async def models() -> ModelList:
        return ModelList(models=manifests)

    @router.get(
        "/v1/models/{name}", summary="One model's card", responses=documented(NotFound, InvalidRequest)
    )
    async def model(name: str) -> Manifest:
        if name not in cards:
            raise NotFound(f"no model of that name is served; there are {', '.join(cards)}")
        return cards[name]

    return router
