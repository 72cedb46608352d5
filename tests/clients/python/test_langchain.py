"""LangChain's ``ChatOpenAI``."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest

pytest.importorskip("langchain_openai")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from tests.clients.python import world
from tests.clients.python.shapes import Detection, Invoice, Text
from tests.clients.python.stub import OVERLOADED, Stub


def model(url: str, name: str, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=url, api_key="any", **settings)


def human(text: str = "", url: str | None = None) -> HumanMessage:
    return HumanMessage(world.user(text, url)["content"])


def test_a_caption(url: str) -> None:
    answer = model(url, "blip-large").invoke([human()])
    assert answer.text == world.CAPTION
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"


def test_an_image_by_http(url: str, image_url: str) -> None:
    assert model(url, "blip-large").invoke([human(url=image_url)]).text == world.CAPTION


def test_an_image_in_langchains_own_words(url: str) -> None:
    data = base64.b64encode(world.IMAGE.read_bytes()).decode()
    image = {"type": "image", "base64": data, "mime_type": "image/png"}
    question = {"type": "text", "text": world.QUESTION}
    assert model(url, "moondream-2").invoke([HumanMessage([question, image])]).text == world.ANSWER


def test_a_stream(url: str) -> None:
    chunks = list(model(url, "blip-large").stream([human()]))
    assert "".join(chunk.text for chunk in chunks) == world.CAPTION
    assert len([chunk for chunk in chunks if chunk.text]) > 1


def test_a_conversation_with_a_second_image(url: str) -> None:
    first = [SystemMessage("Be brief."), human(world.QUESTION), AIMessage(world.ANSWER)]
    asked = [*first, human(world.QUESTION, world.data_url(world.OTHER_IMAGE))]
    assert model(url, "moondream-2").invoke(asked).text == world.OTHER_ANSWER


def test_a_task_in_the_models_name(url: str) -> None:
    answer = model(url, "florence-2-base:caption").invoke([human()])
    assert "circle" in answer.text


def test_the_objects_are_in_the_content_and_nowhere_else(url: str) -> None:
    answer = model(url, "florence-2-base", extra_body={"task": "detect"}).invoke([human()])
    assert [one["label"] for one in json.loads(answer.text)["objects"]] == ["circle", "square"]
    assert "grounding" not in repr((answer.additional_kwargs, answer.response_metadata))


def test_structured_output_by_default(url: str) -> None:
    """The default sends a JSON schema and parses the content."""
    detect = model(url, "florence-2-base", extra_body={"task": "detect"}).with_structured_output(Detection)
    found = detect.invoke([human()])
    assert isinstance(found, Detection)
    assert [one.label for one in found.objects] == ["circle", "square"]
    assert model(url, "blip-large").with_structured_output(Text).invoke([human()]) == Text(text=world.CAPTION)


def test_structured_output_by_json_mode(url: str) -> None:
    detect = model(url, "florence-2-base").with_structured_output(Detection, method="json_mode")
    found = detect.invoke([human("<OD>")])
    assert isinstance(found, Detection)
    assert [one.label for one in found.objects] == ["circle", "square"]


def test_structured_output_in_a_stream(url: str) -> None:
    detect = model(url, "florence-2-base").with_structured_output(Detection)
    *_, last = detect.stream([human("<OD>")])
    assert isinstance(last, Detection)
    assert [one.label for one in last.objects] == ["circle", "square"]


def test_structured_output_by_tools_is_refused_in_words(url: str) -> None:
    calls = model(url, "florence-2-base").with_structured_output(Detection, method="function_calling")
    with pytest.raises(openai.BadRequestError, match=r"does not support tools.*JSON schema instead"):
        calls.invoke([human("<OD>")])


def test_a_schema_that_no_answer_has_is_refused(url: str) -> None:
    with pytest.raises(openai.BadRequestError, match=r"grounding\.json"):
        model(url, "blip-large").with_structured_output(Invoice).invoke([human()])


def test_tools_on_offer_are_left_aside(url: str) -> None:
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    answer = model(url, "blip-large").bind_tools([weather]).invoke([human()])
    assert (answer.text, answer.tool_calls) == (world.CAPTION, [])


def test_errors_by_class(url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        model(url, "gpt-4o").invoke([human()])
    with pytest.raises(openai.BadRequestError, match="not an image") as caught:
        model(url, "blip-large").invoke([human(url=world.BROKEN_IMAGE)])
    assert caught.value.code == "invalid_image_format"


def test_an_overload_is_retried_and_a_mistake_is_not(stub: Stub) -> None:
    stub.refuse(OVERLOADED)
    assert model(f"{stub.url}/v1", "blip-large").invoke([human()]).text == world.CAPTION
    assert len(stub.calls) == 2
    with pytest.raises(openai.BadRequestError):
        model(f"{stub.url}/v1", "blip-large").invoke([human(url=world.BROKEN_IMAGE)])
    assert len(stub.calls) == 3


@pytest.mark.anyio
async def test_async(url: str) -> None:
    captions = model(url, "blip-large")
    assert (await captions.ainvoke([human()])).text == world.CAPTION
    assert "".join([chunk.text async for chunk in captions.astream([human()])]) == world.CAPTION
    batch = await captions.abatch([[human()], [human(url=world.data_url(world.OTHER_IMAGE))]])
    assert [answer.text for answer in batch] == [world.CAPTION, world.OTHER_CAPTION]
    detect = model(url, "florence-2-base").with_structured_output(Detection)
    assert len((await detect.ainvoke([human("<OD>")])).objects) == 2


# By the Responses API


def test_responses(url: str) -> None:
    by_responses = model(url, "blip-large", use_responses_api=True)
    assert by_responses.invoke([human()]).text == world.CAPTION
    assert "".join(chunk.text for chunk in by_responses.stream([human()])) == world.CAPTION


def test_structured_output_by_responses(url: str) -> None:
    detect = model(url, "florence-2-base", use_responses_api=True).with_structured_output(Detection)
    found = detect.invoke([human("<OD>")])
    assert [one.label for one in found.objects] == ["circle", "square"]
