"""What the document says of a route: one :class:`Operation` each, declared where the route is added to the table.

Knows no route and no format; ``router.openapi.document`` writes these as OpenAPI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import Route

Json = dict[str, Any]

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in a route's path, query or headers."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Events:
    """A stream of server-sent events.

    Attributes:
        description: Their order.
        kind: The type of the JSON in each.
        other: Schemas of the data of events that hold no JSON.
    """

    description: str
    kind: Any
    other: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A success, or an error that has more than the error object.

    Attributes:
        description: When it comes.
        content: The type of the body for each media type: one that pydantic reads, or a JSON schema.
        headers: Those that it has beside the headers of all answers.
        events: The answer as a stream, where there is one.
    """

    description: str
    content: Mapping[str, Any]
    headers: tuple[str, ...] = ()
    events: Events | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One route and method. Compared by identity, since each is declared once.

    Attributes:
        id: A name for generated clients.
        summary, description: For people.
        tag: The group that it is listed in.
        answers: By status.
        codes: The error codes that it answers with, of ``router.openapi.error_codes``.
        method: Of HTTP.
        parameters: Beside those that every route has.
        body: The type of the body for each media type; empty for none.
        body_description: What the types cannot say of the body.
    """

    id: str
    summary: str
    description: str
    tag: str
    answers: Mapping[int, Answer]
    codes: tuple[str | None, ...]
    method: str = "GET"
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    body_description: str = ""

    @property
    def types(self) -> tuple[Any, ...]:
        """The types of its body and its answers, events included, in order."""
        answered = [one for answer in self.answers.values() for one in answer.content.values()]
        streamed = [answer.events.kind for answer in self.answers.values() if answer.events is not None]
        return (*self.body.values(), *answered, *streamed)


class DescribedRoute(Route):
    """A route with the operation that describes it."""

    def __init__(self, path: str, endpoint: Callable[..., Any], operation: Operation) -> None:
        super().__init__(path, endpoint, methods=[operation.method], name=operation.id)
        self.operation = operation
