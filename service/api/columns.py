"""The fields of a face as columns of CSV; dots join nested names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from service.api.schemas import DetectionQuery, Face, Include

INCLUDES = set(Include)


def face_columns(labels: Sequence[str], query: DetectionQuery) -> Iterator[str]:
    """Names of the columns, with the parts that the query includes."""
    return _columns(Face, labels, {name for name in INCLUDES if query.includes(name)})


def flat(face: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a face with the names of their columns. face: as in JSON."""
    for key, value in face.items():
        inner = f"{name}.{key}" if name else key
        if isinstance(value, Mapping):
            yield from flat(value, inner)
        else:
            yield inner, " ".join(map(str, value)) if isinstance(value, list) else value


def _columns(model: type[BaseModel], labels: Sequence[str], parts: set[Include]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name in INCLUDES and name not in parts:
            continue
        inner = _model_in(field.annotation)
        if name == "probabilities":
            yield from (f"probabilities.{label}" for label in labels)
        elif inner is None:
            yield name
        else:
            yield from (f"{name}.{below}" for below in _columns(inner, labels, parts))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model of a field, optional or not; None for other types."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
