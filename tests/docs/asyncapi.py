"""docs/asyncapi.json: the stream as AsyncAPI 3.0, from the models of its messages."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import __version__
from service.api.stream import StreamEnd, StreamQuery
from service.http import examples
from service.http.document import PARAMETERS
from service.http.route_table import STREAM
from service.http.routes.stream import SUBPROTOCOL
from tests.docs.blocks import ROOT

FILE = ROOT / "docs" / "asyncapi.json"

SENT: dict[str, BaseModel] = {
    "answer": examples.FRAME,
    "problem": examples.FRAME_PROBLEM,
    "summary": examples.SUMMARY,
    "group_answer": examples.GROUP_FRAME,
    "group_summary": examples.GROUP_SUMMARY,
}
END = StreamEnd(type="end")


def document() -> dict[str, Any]:
    text_messages = {"end": END, **SENT}
    _, found = models_json_schema(
        [(type(example), "serialization") for example in text_messages.values()],
        ref_template="#/components/schemas/{model}",
    )
    frame = {
        "summary": "One image file. With `clock=sent`, eight bytes before it: its time in seconds.",
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    }
    messages = {"frame": frame, **{name: _message(example) for name, example in text_messages.items()}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ExpressNet Service: streams",
            "version": __version__,
            "description": "Frames of a camera or a video in, faces that are followed over time out.",
        },
        "channels": {
            "stream": {
                "address": STREAM,
                "description": "A refusal is a `Problem` before the WebSocket is opened. "
                "docs/reference/stream.md has "
                "the refusals, the close codes and the rest of the protocol.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "query": _query(), "headers": _headers()}},
            }
        },
        "operations": {
            "receive": _operation("receive", "frame", "end"),
            "send": _operation("send", *SENT),
        },
        "components": {"messages": messages, "schemas": found["$defs"]},
    }


def _message(example: BaseModel) -> dict[str, Any]:
    return {
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{type(example).__name__}"},
        "examples": [{"payload": examples.as_json(example)}],
    }


def _operation(action: str, *messages: str) -> dict[str, Any]:
    """action: what the service does with the messages, `send` or `receive`."""
    return {
        "action": action,
        "channel": {"$ref": "#/channels/stream"},
        "messages": [{"$ref": f"#/channels/stream/messages/{name}"} for name in messages],
    }


def _query() -> dict[str, Any]:
    schema = StreamQuery.model_json_schema()
    return {name: schema[name] for name in ("type", "properties", "additionalProperties")}


def _headers() -> dict[str, Any]:
    keys = {
        "Authorization": "`Bearer` and a key, where keys are needed.",
        "X-API-Key": "The same key, instead.",
        "Sec-WebSocket-Protocol": f"`{SUBPROTOCOL}`, and from a page `key.` with the key behind it.",
    }
    return {
        "type": "object",
        "properties": {
            **{name: {"type": "string", "description": meaning} for name, meaning in keys.items()},
            "X-Request-ID": {
                "type": "string",
                "description": PARAMETERS["X-Request-ID"]["description"],
            },
        },
    }
