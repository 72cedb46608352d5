"""Requests that schemathesis makes out of the document, against the router in this process.

Some hundred by default; ``make fuzz`` makes many thousand. ``FUZZ_CASES`` is their number and ``FUZZ_SEED`` chooses
others.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncGenerator, Callable
from copy import deepcopy
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings

from router.app import create_app
from router.config import RouterConfig
from router.openapi.error_codes import OF_IMAGES
from tests.images import data_url, plain
from tests.router.openapi.answers import data_of
from tests.router.openapi.documents import Json, event_validator, objects, operations, served
from tests.router.world import FakeBackend, chosen_script, geometry, of_choices, script, several, with_reasoning, words
from vlm.models.cards import cards
from vlm.types import Chunk, Completion, Request

schemathesis: Any = pytest.importorskip("schemathesis")
checks: Any = pytest.importorskip("schemathesis.checks")
openapi_checks: Any = pytest.importorskip("schemathesis.specs.openapi.checks")

CASES = int(os.environ.get("FUZZ_CASES", "150"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
OTHER_THREADS = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
"""Hypothesis takes it for ours when another thread draws a number, as one that sends an earlier test's traces again."""
pytestmark = OTHER_THREADS
SHARE_OF_BODIES = 0.7
"""Of the cases: those of routes that read a body. The others have little that can differ."""

CHECKS = (
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
)
IMAGE = data_url(plain(8, 6))
MODELS = ["blip-large", "microsoft/Florence-2-base", "florence-2-base:detect", "nobody"]


class Stub(FakeBackend):
    """Answers of all forms, as fast as they can be written; there is no model that could refuse anything."""

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        answer = self._answer(request)
        self.steps = chosen_script(answer) if answer.choices else script(answer)
        async for chunk in super().generate(model, request):
            yield chunk

    def _answer(self, request: Request) -> Completion:
        if request.n > 1:
            return of_choices(*[words(), geometry(), with_reasoning()] * 3)
        if request.tasks:
            return several(*[geometry(), words()] * len(request.tasks))
        return (words(), geometry(), with_reasoning())[len(self.asked) % 3]


def simplified() -> Json:
    """The document without a rule: schemathesis gives up where there are too many alternatives."""
    document = deepcopy(served())
    document["components"]["schemas"]["ResponsesRequest"]["allOf"].pop(0)  # that stream_options needs stream
    return document


def steered() -> Json:
    """The same with the names and images that are served here, so that most requests come to an answer."""
    document = simplified()
    schemas = document["components"]["schemas"]
    names = sorted({task.name for card in cards().values() for task in card.tasks})
    schemas["TaskBody"]["properties"]["name"] = {"enum": names}
    for properties in (one["properties"] for one in objects(schemas)):
        for name in {"url", "image_url", "file_data"} & properties.keys():
            if "pattern" in json.dumps(properties[name]):
                properties[name] = {"enum": [IMAGE, IMAGE.upper(), "http://127.0.0.1/a.png"]}
    for path, method in with_body():
        content = document["paths"][path][method]["requestBody"]["content"]
        if "application/json" in content:
            name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            schemas[name]["properties"]["model"] = {"enum": MODELS}
    return document


@cache
def folder() -> TemporaryDirectory[str]:
    """For uploaded files; removed when the process ends."""
    return TemporaryDirectory()


def loaded(document: Json) -> Any:
    config = schemathesis.Config.from_dict({"max-stream-events": 10_000})  # else the ends of streams are not read
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.app = create_app(Stub(), RouterConfig(image_urls="off", files_url=folder().name, files_without_key=True))
    return schema


SCHEMAS: dict[str, Any] = {}


def schema(name: str, make: Callable[[], Json]) -> Any:
    """A document as schemathesis has it, made once."""
    if name not in SCHEMAS:
        SCHEMAS[name] = loaded(make())
    return SCHEMAS[name]


def with_body() -> list[tuple[str, str]]:
    return [(path, method) for path, method, operation in operations() if "requestBody" in operation]


def without_body() -> list[tuple[str, str]]:
    return [(path, method) for path, method, operation in operations() if "requestBody" not in operation]


def run(strategy: Any, number: float, check: Callable[[Any, Any], None]) -> None:
    """Send so many cases, and hold each answer against the document."""

    @seed(SEED)
    @settings(
        max_examples=max(5, int(number)),
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(case: Any) -> None:
        note(case.as_curl_command())
        answer = case.call()
        case.validate_response(answer, checks=list(CHECKS))
        check_events(answer, case.path)
        check(case, answer)

    each()


def check_events(answer: Any, path: str) -> None:
    """Every event of a stream is what the document says of it."""
    if answer.headers["content-type"][0].startswith("text/event-stream"):
        events = [data_of(event) for event in answer.text.split("\n\n") if event and not event.startswith(":")]
        for event in events:
            if event != "[DONE]":
                event_validator(path).validate(json.loads(event))


def anything(case: Any, answer: Any) -> None:
    """No further check."""


BEYOND_THE_SCHEMA = [
    ("model_not_found", r"model"),
    ("invalid_value", r"model"),  # it ends in a task that is not the route's
    *(  # models that do not exist, lack the task or do not go together
        (code, r"models(\[\d+\])?|min_confidence|min_votes|prefer|max_price\.image|n|tasks?|logprobs|include_raw")
        for code in ("model_not_found", "unsupported_task", "invalid_value")
    ),
    ("missing_required_parameter", r"task|pipeline\[\d+\]\.for_each"),
    *((code, r"pipeline(\[\d+\]\.[a-z_.]+)?") for code in ("model_not_found", "unsupported_task", "invalid_value")),
    ("invalid_value", r"spatial_refs\[\d+\]"),
    ("invalid_value", r".*\.box(_px)?"),  # exchanged corners, and pixels outside of the image
    ("invalid_value", r"messages"),  # pixels without an image, or with images of several sizes
    ("unsupported_parameter", r"response_format"),  # a JSON schema that no answer has
    *((code, r"file") for code in OF_IMAGES),
    *((code, r"input\[\d+\]\.content\[\d+\]\.image_url") for code in OF_IMAGES),
    ("unsupported_parameter", r"text\.format"),
    ("invalid_value", r"input"),
    ("invalid_value", r"stream_options"),
    ("invalid_value", r"(messages|input)\[\d+\]\.content"),  # more images than a request may have
    ("image_file_not_found", r".*file_id"),
    ("accounts_not_enabled", r""),
    *((code, r"(messages\[\d+\]\.content\[\d+\]\.(image_url\.url|file\.file_data)|image_url)") for code in OF_IMAGES),
]
"""Reasons to refuse a request that fits the schema: code and parameter. The document says each in words."""


def is_accepted(case: Any, answer: Any) -> None:
    """What fits the schema is accepted, or refused for what a schema cannot say."""
    if answer.status_code >= 400:
        error = answer.json()["error"]
        found = (error["code"], error["param"])
        assert any(code == found[0] and re.fullmatch(param, found[1] or "") for code, param in BEYOND_THE_SCHEMA), error


def is_refused(case: Any, answer: Any) -> None:
    """What does not fit is refused, unless it is in a message that is skipped, or in a field of a form that is."""
    if answer.status_code < 400 and case.media_type == "application/json":
        assert "messages" in str(case.meta), case.body


@pytest.mark.parametrize(("path", "method"), with_body())
def test_bodies_that_fit(path: str, method: str) -> None:
    operation = schema("steered", steered)[path][method.upper()]
    strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    run(strategy, CASES * SHARE_OF_BODIES / len(with_body()) / 2, is_accepted)


@pytest.mark.parametrize(("path", "method"), with_body())
def test_bodies_that_do_not_fit(path: str, method: str) -> None:
    operation = schema("steered", steered)[path][method.upper()]
    strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    run(strategy, CASES * SHARE_OF_BODIES / len(with_body()) / 4, is_refused)


@pytest.mark.parametrize(("path", "method"), [*with_body(), *without_body()])
def test_any_request(path: str, method: str) -> None:
    operation = schema("simplified", simplified)[path][method.upper()]
    share = SHARE_OF_BODIES / len(with_body()) / 4
    if (path, method) in without_body():
        share = (1 - SHARE_OF_BODIES) / len(without_body())
    run(operation.as_strategy(), CASES * share, anything)
