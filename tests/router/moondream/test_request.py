"""What a body of Moondream's API becomes, and what is wrong with one that becomes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from router.config import RouterConfig
from router.moondream.format import ROUTES
from router.moondream.request import IMPOSSIBLE, MoondreamRequest, build_request, parse_request
from tests.router.moondream.asking import (
    ALL,
    CAPTION,
    DETECT,
    IMAGE_URL,
    JPEG,
    POINT,
    QUERY,
    QUERY_WITH_ALL,
    QUESTION_ALONE,
    SEGMENT,
)
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, ModelNotFound, UnsupportedTask
from vlm.models.cards import cards
from vlm.types import Box, Point, Request, Sampling, Task

Json = dict[str, Any]


def read(route: str, body: Json, config: RouterConfig | None = None) -> MoondreamRequest:
    parsed = parse_request(route, json.dumps(body).encode(), config or RouterConfig())
    assert [(one.url, one.param) for one in parsed.images] == (
        [(IMAGE_URL, "image_url")] if "image_url" in body else []
    )
    return build_request(parsed, [JPEG for _ in parsed.images])


def refused(route: str, body: Json, config: RouterConfig | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(route, body, config)
    return caught.value


# What the client sends


@pytest.mark.parametrize(
    ("route", "body", "task"),
    [
        ("caption", CAPTION, Task("caption")),
        ("caption", CAPTION | {"length": "short"}, Task("caption", length="short")),
        ("query", QUERY, Task("query", text="What is this?")),
        ("query", QUESTION_ALONE, Task("query", text="What is this?")),
        (
            "query",
            QUERY_WITH_ALL,
            Task("query", text="What is this?", reasoning=True, references=(Point(0.5, 0.25), Box(0, 0, 0.5, 1))),
        ),
        ("detect", DETECT, Task("detect", labels=("red square",))),
        ("detect", DETECT | {"settings": {"max_objects": 3}}, Task("detect", labels=("red square",), max_objects=3)),
        ("point", POINT, Task("point", labels=("red square",))),
        (
            "point",
            POINT | {"spatial_refs": [[0.1, 0.2]]},
            Task("point", labels=("red square",), references=(Point(0.1, 0.2),)),
        ),
        ("segment", SEGMENT, Task("segment", text="red square")),
        (
            "segment",
            SEGMENT | {"spatial_refs": [[0, 0, 1, 1]]},
            Task("segment", text="red square", references=(Box(0, 0, 1, 1),)),
        ),
        (
            "segment",
            SEGMENT | {"object": "", "spatial_refs": [[0.1, 0.2, 0.5, 0.6]]},
            Task("segment", region=Box(0.1, 0.2, 0.5, 0.6)),
        ),
    ],
)
def test_the_task_is_that_of_the_route(route: str, body: Json, task: Task) -> None:
    built = read(route, body)
    image = JPEG if "image_url" in body else None
    expected = Request(image, task=task, stream=False)
    assert replace(built.request, sampling=Sampling()) == expected
    assert built.model == "moondream-2"
    assert built.ignored(()) == ()


def test_the_image_is_kept_once() -> None:
    """Not as base64 beside its bytes, which may be as many megabytes again for as long as the answer takes."""
    assert IMAGE_URL not in repr(read("query", QUERY))


def test_settings_are_how_tokens_are_chosen() -> None:
    assert read("query", QUERY_WITH_ALL).request.sampling == Sampling(temperature=0.5, top_p=0.3, max_tokens=128)
    assert read("query", QUERY | {"settings": {}}).request.sampling == Sampling()
    assert read("query", QUERY | {"settings": {"temperature": None, "max_tokens": None}}).request.sampling == Sampling()


@pytest.mark.parametrize("route", ["caption", "query", "segment"])
def test_an_answer_may_be_streamed(route: str) -> None:
    assert read(route, ALL[route] | {"stream": True}).request.stream
    assert not read(route, ALL[route] | {"stream": None}).request.stream


@pytest.mark.parametrize("route", ROUTES)
def test_null_is_the_same_as_a_missing_field(route: str) -> None:
    nulls = dict.fromkeys(("model", "settings", "drop_params", "length", "reasoning", "spatial_refs", "stream", "new"))
    built = read(route, nulls | ALL[route])
    assert built == read(route, ALL[route])
    assert built.ignored(()) == ()


# The model


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("vikhyatk/moondream2", "moondream-2"),
        ("florence-2-base", "florence-2-base"),
        ("florence-2-base:detect", "florence-2-base"),
        ("default", "kosmos-2"),
        ("moondream3-preview/01HX@1000", "moondream3-preview/01HX@1000"),
    ],
)
def test_another_model(name: str, model: str) -> None:
    built = read("detect", DETECT | {"model": name}, RouterConfig(default_model="kosmos-2"))
    assert built.model == model


def test_a_model_whose_name_asks_for_another_task() -> None:
    error = refused("detect", DETECT | {"model": "florence-2-base:ocr"})
    assert (error.param, error.code) == ("model", "invalid_value")
    assert "'ocr'" in error.message
    assert "'detect'" in error.message


def test_one_card_says_that_these_routes_are_its_models() -> None:
    assert [name for name, card in cards().items() if card.api == "moondream"] == ["moondream-2"]


# What has no effect


@pytest.mark.parametrize(
    ("route", "more", "ignored"),
    [
        ("caption", {"question": "Why?", "reasoning": True}, ("question", "reasoning")),
        ("detect", {"stream": True, "reasoning": False}, ("stream",)),
        ("detect", {"spatial_refs": [[0, 0]]}, ("spatial_refs",)),
        ("query", {"settings": {"seed": 1, "top_k": None}, "user": "kim"}, ("user", "settings.seed")),
        (
            "query",
            {"variant": "01HX", "settings": {"variant": "x"}, "drop_params": True},
            ("variant", "settings.variant"),
        ),
    ],
)
def test_fields_without_effect_are_reported(route: str, more: Json, ignored: tuple[str, ...]) -> None:
    assert read(route, ALL[route] | more).ignored(()) == ignored


def test_what_the_model_does_not_use_is_reported_by_its_path() -> None:
    built = read("point", POINT | {"user": "kim"})
    by_model = ("task.references", "task.max_objects", "task.labels", "prompt", "user")
    assert built.ignored(by_model) == ("user", "spatial_refs", "settings.max_objects", "object")
    assert read("query", QUERY).ignored(("task.text", "task.reasoning")) == ("question", "reasoning")
    assert read("caption", CAPTION).ignored(("task.length",)) == ("length",)


def test_no_more_is_reported_than_anybody_reads() -> None:
    many = {f"field-{number}" + "x" * 200: 1 for number in range(100)}
    *names, others = read("caption", CAPTION | many).ignored(())
    assert others == "and 68 more"
    assert len(names) == 32
    assert {len(name) for name in names} == {128}


@pytest.mark.parametrize("path", IMPOSSIBLE)
def test_a_variant_is_refused_unless_it_may_be_dropped(path: str) -> None:
    outer, _, inner = path.partition(".")
    body = QUERY | {outer: {inner: "01HX"} if inner else "01HX"}
    error = refused("query", body)
    assert (error.param, error.code) == (path, "unsupported_parameter")
    assert "drop_params" in error.message
    assert read("query", body, RouterConfig(drop_params=True)).ignored(()) == (path,)
    assert refused("query", body | {"drop_params": False}, RouterConfig(drop_params=True)).param == path


# What is wrong


REQUIRED = "missing_required_parameter"


@pytest.mark.parametrize(
    ("route", "change", "param", "code"),
    [
        ("caption", {"image_url": None}, "image_url", "invalid_type"),
        ("caption", {"image_url": {"url": IMAGE_URL}}, "image_url", "invalid_type"),
        ("caption", {"length": "tiny"}, "length", "invalid_value"),
        ("caption", {"stream": "yes"}, "stream", "invalid_type"),
        ("query", {"question": " "}, "question", "invalid_value"),
        ("query", {"question": 3}, "question", "invalid_type"),
        ("query", {"question": "x" * 32_769}, "question", "context_length_exceeded"),
        ("query", {"reasoning": "on"}, "reasoning", "invalid_type"),
        ("query", {"spatial_refs": [[0.5]]}, "spatial_refs[0]", "invalid_value"),
        ("query", {"spatial_refs": [[0, 0], [0, 0, 1]]}, "spatial_refs[1]", "invalid_value"),
        ("query", {"spatial_refs": [[0, 0, 1, 1, 1]]}, "spatial_refs[0]", "invalid_value"),
        ("query", {"spatial_refs": [[0, 1.5]]}, "spatial_refs[0][1]", "invalid_value"),
        ("query", {"spatial_refs": [[0.5, 0, 0.4, 1]]}, "spatial_refs[0]", "invalid_value"),
        ("query", {"spatial_refs": [[0, 0]] * 65}, "spatial_refs", "invalid_value"),
        ("query", {"settings": []}, "settings", "invalid_type"),
        ("query", {"settings": {"temperature": 3}}, "settings.temperature", "invalid_value"),
        ("query", {"settings": {"top_p": -1}}, "settings.top_p", "invalid_value"),
        ("query", {"settings": {"max_tokens": 0}}, "settings.max_tokens", "invalid_value"),
        ("query", {"settings": {"max_tokens": "9"}}, "settings.max_tokens", "invalid_type"),
        ("detect", {"object": ""}, "object", "invalid_value"),
        ("detect", {"object": "x" * 257}, "object", "string_above_max_length"),
        ("detect", {"settings": {"max_objects": 0}}, "settings.max_objects", "invalid_value"),
        ("segment", {"object": " "}, "object", "invalid_value"),
        ("segment", {"object": None}, "object", REQUIRED),
        ("segment", {"object": None, "spatial_refs": [[0, 0]]}, "object", REQUIRED),
        ("segment", {"object": None, "spatial_refs": [[0, 0, 1, 1], [0, 0, 1, 1]]}, "object", REQUIRED),
    ],
)
def test_a_wrong_field_is_named_by_its_path(route: str, change: Json, param: str, code: str) -> None:
    body = ALL[route] | change
    with pytest.raises(InvalidRequest) as caught:
        build_request(parse_request(route, json.dumps(body).encode(), RouterConfig()), [JPEG])
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.message.startswith(param) or code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("route", "field"),
    [
        *((route, "image_url") for route in ("caption", "detect", "point", "segment")),
        *((route, "object") for route in ("detect", "point", "segment")),
        ("query", "question"),
    ],
)
def test_what_a_route_needs(route: str, field: str) -> None:
    body = {name: value for name, value in ALL[route].items() if name != field}
    error = refused(route, body)
    assert (error.param, error.code) == (field, REQUIRED)


# What the model says


@pytest.mark.parametrize(
    ("route", "param", "path"),
    [
        ("caption", "image", "image_url"),
        ("caption", None, None),
        ("query", "prompt", "question"),
        ("query", "task.text", "question"),
        ("query", "task.references", "spatial_refs"),
        ("query", "max_tokens", "settings.max_tokens"),
        ("detect", "prompt", "object"),
        ("detect", "task.labels", "object"),
        ("point", "task.max_objects", "settings.max_objects"),
        ("segment", "task.text", "object"),
        ("segment", "task.region", "spatial_refs"),
    ],
)
def test_errors_of_the_model_name_fields_of_the_body(route: str, param: str | None, path: str | None) -> None:
    located = read(route, ALL[route]).located(InvalidRequest("No.", param, "invalid_value"))
    assert (located.message, located.param, located.code) == ("No.", path, "invalid_value")


def test_a_bad_image_is_the_one_that_there_is() -> None:
    located = read("query", QUERY).located(InvalidImage("Damaged.", code="image_parse_error"))
    assert (located.param, located.code) == ("image_url", "image_parse_error")


def test_a_task_that_the_model_lacks_names_the_models_that_have_it() -> None:
    refusal = UnsupportedTask("Moondream 2 has no task 'segment'.", "task", "unsupported_task")
    located = read("segment", SEGMENT).located(refusal)
    assert isinstance(located, UnsupportedTask)
    assert (located.param, located.code) == ("model", "unsupported_task")
    assert located.message.endswith("Name a model that has it as model: florence-2-base.")


def test_a_model_that_was_not_named_and_is_not_served() -> None:
    absent = ModelNotFound("The model is not served here.")
    assert "does not name a model" in read("query", QUERY).located(absent).message
    assert read("query", QUERY | {"model": "other"}).located(absent).message == absent.message


def test_other_errors_stay_what_they_are() -> None:
    located = read("query", QUERY).located(EngineFailure("Broken."))
    assert (type(located), located.message, located.param) == (EngineFailure, "Broken.", None)
