"""Holds answers of any format against OpenAI's own types, strictly, and against the schemas of the document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
from openai.types.shared import ErrorObject
from pydantic import TypeAdapter

from tests.router.openapi.documents import Json, event_validator, operations, strict_validator


@dataclass(frozen=True)
class Answers:
    """One format of answers.

    Attributes:
        path: The route.
        whole, event: The types of OpenAI's library for a whole answer and for the JSON of an event.
        schema: Name of the document's schema of a whole answer.
        done: The data of the last event, if it is no JSON.
    """

    path: str
    whole: Any
    event: Any
    schema: str
    done: str | None = None

    def check(self, answer: httpx.Response) -> Any:
        """A whole answer, as OpenAI's type."""
        assert answer.status_code == 200, answer.text
        strict_validator(self.schema).validate(answer.json())
        return TypeAdapter(self.whole).validate_json(answer.content, strict=True)

    def check_stream(self, answer: httpx.Response) -> list[Any]:
        """A streamed answer, as a list of OpenAI's type for events."""
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [data_of(event) for event in answer.text.split("\n\n") if event and not event.startswith(":")]
        if self.done is not None:
            assert events.pop() == self.done
        for event in events:
            event_validator(self.path).validate(json.loads(event))
        return [TypeAdapter(self.event).validate_json(event, strict=True) for event in events]


def data_of(event: str) -> str:
    """The data of an event; its name, where it has one, is in the data too."""
    [data] = [line.removeprefix("data: ") for line in event.splitlines() if line.startswith("data: ")]
    return data


def check_refusal(answer: httpx.Response, path: str) -> Json:
    """An error of ``POST path``, by OpenAI's type and by what the document says of its status and its codes."""
    error: Json = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} <= ErrorObject.model_fields.keys()
    ErrorObject.model_validate(error, strict=True)
    strict_validator("ErrorBody").validate(answer.json())
    [operation] = [one for at, method, one in operations() if (at, method) == (path, "post")]
    schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
    assert error["code"] in schema["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"]
    return error
