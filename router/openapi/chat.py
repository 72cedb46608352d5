"""The operation of ``POST /v1/chat/completions``, with the rules about its body that are not those of one field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from router.asgi.validation import Checked
from router.chat.schema import ChatBody, ContentParts
from router.conversation.fields import MAX_MESSAGES, NamedSchema, ResponseFormat
from router.conversation.ignored import IMPOSSIBLE
from router.openapi.answers import ChatCompletion, ChatCompletionChunk
from router.openapi.conversation import unsupported
from router.openapi.error_codes import OF_REQUESTS
from router.openapi.operation import JSON, Answer, Events, Json, Operation
from router.openapi.parts import CONFIG, IDEMPOTENCY_KEY, JSON_BODY, OF_MODELS
from router.openapi.rules import ABOVE_0, ABOVE_1, GIVEN, TRUE, excludes, has, needs
from vlm.types import MAX_IMAGES

SEVERAL_LABELS = has("labels", {"type": "array", "minItems": 2})
RULES = (
    needs("stream_options", GIVEN, "stream", TRUE),
    needs("top_logprobs", ABOVE_0, "logprobs", TRUE),
    excludes("task", GIVEN, "tasks", GIVEN),
    excludes("num_beams", ABOVE_1, "temperature", ABOVE_0),
    excludes("n", ABOVE_1, "tasks", GIVEN),
    excludes("n", ABOVE_1, "task", {"type": "object", **SEVERAL_LABELS}),
)
"""Of a request."""


class UserMessage(Checked):
    """A user's message: the last one is read for its text, the newest with an image for its images."""

    role: Literal["user"]
    content: ContentParts = Field(default_factory=list, description="Text, or parts in any order.")


class OtherMessage(Checked):
    """A message that is skipped, whatever it holds."""

    role: Literal["system", "developer", "assistant", "tool", "function"]


AnyMessage = Annotated[UserMessage | OtherMessage, Field(discriminator="role")]


class JsonSchemaFormat(Checked):
    """JSON in the form of a schema. Accepted are those whose required properties an answer has."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class SimpleFormat(ResponseFormat):
    """The usual content, or JSON in the form that the task has."""

    type: Literal["text", "json_object"]


AnyFormat = Annotated[SimpleFormat | JsonSchemaFormat, Field(discriminator="type")]


def _complete(schema: Json) -> None:
    """Add to pydantic's schema of a request what pydantic does not check."""
    schema["properties"] |= unsupported(IMPOSSIBLE)
    schema["allOf"] = list(RULES)


class ChatCompletionRequest(ChatBody):
    """A request to a model, in OpenAI's format of chat completions."""

    model_config = ConfigDict(json_schema_extra=_complete)

    messages: Annotated[list[AnyMessage], Field(min_length=1, max_length=MAX_MESSAGES)] = Field(  # type: ignore[assignment]  # only its schema is used
        description=ChatBody.model_fields["messages"].description,
        json_schema_extra={"contains": has("role", {"const": "user"})},
    )
    response_format: AnyFormat | None = Field(  # type: ignore[assignment]  # likewise
        None,
        description=ChatBody.model_fields["response_format"].description,
        json_schema_extra={"default": {"type": "text"}},
    )


_BODY = f"""{JSON_BODY}

What the schema does not say:

- A request has at most {MAX_IMAGES} images, and the text that is read at most {CONFIG.max_prompt_chars:,} characters. \
Most models need an image. Messages that are skipped are not checked.
- In a region or reference, x1 <= x2 and y1 <= y2, and pixels are within the image. With several images, pixels need \
images of one size.
- A JSON schema is accepted if all that it requires is in the grounding object, or if it is the schema of an object \
with a text alone.
- The model must have the task, and the request what the task needs; GET /v1/models lists both. All tasks, labels, \
images and answers together are at most 64 generations.
- A logit_bias names ids that the model has."""

_EVENTS = """\
With stream: true. An event with the role of each of n answers, in order; events with reasoning_content, where the \
model reasons; events with content; an event with finish_reason and grounding for each answer, in order; with \
include_usage, an event with empty choices and the usage; `data: [DONE]`."""

CHAT = Operation(
    id="create_chat_completion",
    summary="A request to a model",
    description="OpenAI's chat completions, with fields of our own for tasks and for the objects that a model finds.",
    tag="chat",
    method="POST",
    body={JSON: ChatCompletionRequest},
    body_description=_BODY,
    answers={
        200: Answer(
            "The answer, whole or as a stream of events.",
            {JSON: ChatCompletion},
            headers=OF_MODELS,
            events=Events(_EVENTS, ChatCompletionChunk, other=({"const": "[DONE]"},)),
        )
    },
    codes=OF_REQUESTS,
    parameters=(IDEMPOTENCY_KEY,),
)
