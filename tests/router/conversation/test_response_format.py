"""JSON schemas are accepted by what they require; the content keeps to them."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from router.conversation.answer import ResponseOptions, content_of, found_json
from router.conversation.fields import GroundingFormat, NamedSchema, ResponseFormat
from router.conversation.json_schema import MAX_REQUIRED, JsonSchema
from router.conversation.response_format import ContentForm, read_form
from tests.router.world import FakeBackend, body, client, events, geometry, post, script, several, words
from vlm.errors import InvalidRequest
from vlm.grounding_formats import FORMATS
from vlm.grounding_schema import grounding_schema
from vlm.types import Chunk


class Found(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str
    box: list[float] | None
    score: float | None = None


class Objects(BaseModel):
    model_config = ConfigDict(extra="forbid")

    objects: list[Found]


class Loose(BaseModel):
    task: str
    objects: list[dict[str, Any]] = []
    mood: str | None = None


class Strict(BaseModel):
    """As typed clients write it in strict mode: everything is required, and what is optional may be null."""

    model_config = ConfigDict(extra="forbid")

    class One(BaseModel):
        model_config = ConfigDict(extra="forbid")

        label: str
        colour: str | None

    objects: list[One]
    count: int | None


class Text(BaseModel):
    text: str


class Person(BaseModel):
    name: str
    objects: list[Found]


class Rated(BaseModel):
    class One(BaseModel):
        label: str
        certainty: float

    objects: list[One]


def form(schema: Any, name: str = "answer") -> ContentForm:
    named = NamedSchema.model_validate({"name": name, "schema": schema})
    return read_form(ResponseFormat(type="json_schema", json_schema=named))


def content(kind: type[BaseModel], completion: Any) -> Any:
    found = form(kind.model_json_schema())
    return json.loads(content_of(completion, ResponseOptions(found.content, schema=found.schema)))


@pytest.mark.parametrize("kind", [Objects, Loose])
def test_a_part_of_the_grounding_is_read_by_the_class_that_asked(kind: type[BaseModel]) -> None:
    sent = content(kind, geometry())
    read = kind.model_validate(sent)
    assert len(read.objects) == 2  # type: ignore[attr-defined]  # both classes have them


def test_a_closed_schema_gets_nothing_else() -> None:
    sent = content(Objects, geometry())
    assert set(sent) == {"objects"}
    assert set(sent["objects"][0]) == {"label", "box", "score"}
    assert {"version", "images"} < set(content(Loose, geometry()))


def test_what_may_be_null_is_null_where_no_answer_has_it() -> None:
    sent = content(Strict, geometry())
    assert sent["count"] is None
    assert [set(one) for one in sent["objects"]] == [{"label", "colour"}] * 2
    assert {one.colour for one in Strict.model_validate(sent).objects} == {None}


def test_a_schema_that_requires_very_many_properties_is_refused() -> None:
    names = [f"name{index}" for index in range(MAX_REQUIRED + 1)]
    nothing = {name: {"type": ["string", "null"]} for name in names}
    assert form({"properties": nothing, "required": names[1:]}).content == "grounding"
    with pytest.raises(InvalidRequest):
        form({"properties": nothing, "required": names})


def test_a_text_alone_is_the_answer_whatever_its_task() -> None:
    assert content(Text, words()) == {"text": "a red square"}
    assert "objects" in json.loads(content(Text, geometry())["text"])


def test_the_published_schema_is_accepted_under_any_name() -> None:
    assert form(grounding_schema(), "whatever").content == "grounding"
    assert form(None, "grounding") == ContentForm("grounding")
    assert form({}).content == "grounding"


@pytest.mark.parametrize(
    "schema",
    [
        Person.model_json_schema(),
        Rated.model_json_schema(),
        {"type": "array", "items": Found.model_json_schema()},
        {"type": "object", "properties": {"text": {"type": "object"}}, "required": ["text"]},
        {"type": "object", "properties": {"objects": {"type": "string"}}},
        {"type": "object", "required": [1]},
        {"type": "object", "properties": {"objects": False}, "required": ["objects"]},
    ],
)
def test_a_schema_that_no_answer_fits_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"/v1/schemas/grounding\.json") as caught:
        form(schema)
    assert (caught.value.param, caught.value.code) == ("response_format", "unsupported_parameter")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["#", "#/a", "object", "array", "text", "objects"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "properties", "required", "items", "anyOf", "$ref", "objects", "text", "$defs"]),
        inner, max_size=4,
    ),
    max_leaves=16,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["type", "properties", "required", "items", "anyOf", "$ref"]), json_values))
def test_any_schema_is_read_or_refused(schema: dict[str, Any]) -> None:
    try:
        found = form(schema)
    except InvalidRequest:
        return
    assert content_of(geometry(), ResponseOptions(found.content, schema=found.schema))


def test_a_schema_within_itself_ends() -> None:
    again: dict[str, Any] = {"$ref": "#"}
    endless = {"anyOf": [again] * 1000, "properties": {"parts": {"items": {"anyOf": [again] * 1000}}}}
    assert form(endless).content == "grounding"  # by comparing each pair once
    assert JsonSchema(endless).kept({"parts": [{"parts": []}]}) == {"parts": [{"parts": []}]}


def test_a_long_reference_is_not_read_to_its_end() -> None:
    class Counted(str):
        """Tells into how many parts it is split at most."""

        def split(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:  # type: ignore[override]
            assert 0 < maxsplit < 16
            return super().split(sep, maxsplit)

    assert JsonSchema({"$ref": Counted("#/a" + "/a" * 1000)}).properties == {}
    assert JsonSchema({"$ref": Counted("#/$defs/a"), "$defs": {"a": {"properties": {"x": {}}}}}).properties == {"x": {}}


def test_the_formats_are_those_that_can_be_rendered() -> None:
    assert set(get_args(GroundingFormat)) == set(FORMATS)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.anyio
async def test_a_format_is_beside_the_grounding_and_in_the_content(name: str) -> None:
    backend = FakeBackend([Chunk(completion=geometry())])
    answer = await post(backend, body(grounding_format=name))
    message = answer.json()["choices"][0]["message"]
    assert message["grounding_format"]["name"] == name
    assert json.loads(message["content"]) == message["grounding_format"]["value"]
    assert len(message["grounding"]["objects"]) == 2
    [*_, last] = events((await post(backend, body(grounding_format=name, stream=True))).text)
    assert last["choices"][0]["delta"]["grounding_format"] == message["grounding_format"]


@pytest.mark.anyio
async def test_a_text_stays_a_text_and_the_form_of_the_response_comes_first() -> None:
    backend = FakeBackend(script(words()))
    message = (await post(backend, body(grounding_format="coco"))).json()["choices"][0]["message"]
    assert (message["content"], message["grounding_format"]["value"]) == ("a red square", [])
    backend.steps = [Chunk(completion=geometry())]
    wanted = {"type": "json_object"}
    message = (await post(backend, body(grounding_format="coco", response_format=wanted))).json()["choices"][0][
        "message"
    ]
    assert json.loads(message["content"])["version"] == "1"


def test_each_task_has_its_own_value() -> None:
    parts = found_json(several(), ResponseOptions(grounding_format="qwen"))["grounding_format"]["parts"]
    assert [len(part) for part in parts] == [1, 0, 0]


@pytest.mark.anyio
async def test_the_schema_is_published() -> None:
    async with client(FakeBackend()) as http:
        assert (await http.get("/v1/schemas/grounding.json")).json() == grounding_schema()
