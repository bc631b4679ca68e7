"""Query parameters and bodies: how routes read them, and how the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def query_of(request: Request, model: type[M]) -> M:
    """The parameters of a request. Raises `RequestValidationError`.

    Not a FastAPI dependency: its overhead falls on every request, even without parameters.
    """
    if not request.scope["query_string"]:
        return model()
    sent = request.query_params
    values = {name: sent.getlist(name) if name == "include" else sent[name] for name in sent}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def body_of(description: str, content: dict[str, type[BaseModel] | None]) -> dict[str, Any]:
    """A request body for the OpenAPI document. content: forms by content type; None: a file's bytes."""
    schemas = {
        kind: {"type": "string", "format": "binary"}
        if form is None
        else {"$ref": f"#/components/schemas/{form.__name__}"}
        for kind, form in content.items()
    }
    body = {
        "description": description,
        "required": True,
        "content": {kind: {"schema": schema} for kind, schema in schemas.items()},
    }
    return {"requestBody": body}


def parameters_of(model: type[BaseModel]) -> dict[str, Any]:
    """Query parameters for the OpenAPI document."""
    found = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": schema,
            "description": schema["description"],
        }
        for name, schema in model.model_json_schema()["properties"].items()
    ]
    return {"parameters": found}
