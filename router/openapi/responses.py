"""The operations of the Responses API, and its answers as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from router.asgi.validation import Checked
from router.conversation.fields import MAX_MESSAGES, MAX_PARTS
from router.conversation.tier import ServedTier
from router.openapi.answers import (
    CompletionTokensDetails,
    Count,
    ErrorObject,
    Extras,
    Grounding,
    PromptTokensDetails,
    RenderedObjects,
    Token,
    UnixSeconds,
)
from router.openapi.conversation import unsupported
from router.openapi.error_codes import OF_REQUESTS, OF_ROUTES
from router.openapi.operation import JSON, Answer, Events, Json, Operation, Parameter
from router.openapi.parts import IDEMPOTENCY_KEY, JSON_BODY, OF_MODELS
from router.openapi.rules import ABOVE_0, ABOVE_1, GIVEN, TRUE, excludes, has, needs
from router.openapi.schemas import Says
from router.responses.request import IMPOSSIBLE, LOGPROBS, RENAMED, STORED
from router.responses.schema import InputImage, InputText, ResponsesBody
from vlm.types import MAX_IMAGES

# What is sent

RULES = (
    needs("stream_options", GIVEN, "stream", TRUE),
    needs("top_logprobs", ABOVE_0, "include", {"type": "array", "contains": {"const": LOGPROBS}}),
    excludes("task", GIVEN, "tasks", GIVEN),
    excludes("num_beams", ABOVE_1, "temperature", ABOVE_0),
)


class ImageInput(InputImage):
    """An image, by a URL or by the id of an uploaded file."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [has("image_url", GIVEN), has("file_id", GIVEN)]})


ReadParts = Annotated[list[Annotated[InputText | ImageInput, Field(discriminator="type")]], Field(max_length=MAX_PARTS)]


class UserInput(Checked):
    """A user's message: the last one is read for its text, the newest with an image for its images."""

    type: Literal["message"] | None = None
    role: Literal["user"]
    content: Annotated[ReadParts, BeforeValidator(list, json_schema_input_type=str | ReadParts | None)] = Field(
        default_factory=list
    )


class OtherInput(Checked):
    """An item that is skipped, whatever it holds: an answer, a call of a tool and its result, an instruction."""

    model_config = ConfigDict(json_schema_extra={"not": has("role", {"const": "user"})})


Items = Annotated[
    list[UserInput | OtherInput],
    Field(min_length=1, max_length=MAX_MESSAGES, json_schema_extra={"contains": has("role", {"const": "user"})}),
]


def _complete(schema: Json) -> None:
    """Add to pydantic's schema of a request what pydantic does not check."""
    renamed: Json = {
        name: {"enum": [None, False], "description": f"Of chat; here {here}."} for name, here in RENAMED.items()
    }
    stored: Json = {name: {"enum": [None, False], "description": f"Refused: {why}"} for name, why in STORED.items()}
    schema["properties"] |= {**unsupported(IMPOSSIBLE), **renamed, **stored}
    schema["allOf"] = list(RULES)


class ResponsesRequest(ResponsesBody):
    """A request to a model, in OpenAI's format of responses."""

    model_config = ConfigDict(json_schema_extra=_complete)

    input: Annotated[Items, BeforeValidator(list, json_schema_input_type=str | Items)] = Field(  # type: ignore[assignment]  # only its schema is used
        description="A text, or the conversation: its last user message is the prompt, the newest user message with "
        "an image has the images. All other items are skipped."
    )


# What is answered


class ReasoningText(TypedDict):
    """Reasoning."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ReasoningItem(TypedDict):
    """What the model generated before its answer."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[ReasoningText]
    content: list[ReasoningText]


class OutputText(TypedDict):
    """The answer's text."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)]
    logprobs: list[Token]
    token_ids: NotRequired[Annotated[list[Count], Says("The ids of the tokens, with log-probabilities.")]]


class MessageItem(TypedDict):
    """The answer."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]
    grounding: NotRequired[Grounding]
    grounding_format: NotRequired[RenderedObjects]
    model: NotRequired[Annotated[str, Says("With compare, whose answer it is.")]]


class InputTokensDetails(PromptTokensDetails):
    cache_write_tokens: Literal[0]


class ResponseUsage(TypedDict):
    """Tokens read and written."""

    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: CompletionTokensDetails
    cost: NotRequired[Annotated[float, Says("US dollars; absent where the price is not known.")]]
    total_tokens: Count


class ResponseFault(TypedDict):
    """Why a response failed, with the nearest of OpenAI's codes."""

    code: str
    message: str


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


class ReasoningSettings(TypedDict):
    effort: str | None
    summary: str | None


class TextFormat(TypedDict):
    format: dict[str, Any]


class ResponseObject(TypedDict):
    """A response; within a stream also before it is complete."""

    id: str
    object: Literal["response"]
    created_at: UnixSeconds
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    completed_at: UnixSeconds | None
    error: ResponseFault | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[ReasoningItem | MessageItem]
    usage: ResponseUsage | None
    background: Literal[False]
    instructions: str | None
    max_output_tokens: Count | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: ReasoningSettings
    service_tier: ServedTier | None
    store: Literal[False]
    temperature: float | None
    text: TextFormat
    tool_choice: Literal["auto"]
    tools: Annotated[list[Any], Field(max_length=0)]
    top_logprobs: Count
    top_p: float | None
    truncation: Literal["disabled"]
    x_gigarouter: NotRequired[Annotated[Extras, Says("Once the response is complete.")]]


class ResponseEvent(TypedDict):
    """A state of the whole response."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: Count
    response: ResponseObject


class ItemEvent(TypedDict):
    """An item begins or is done."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: Count
    output_index: Count
    item: ReasoningItem | MessageItem


class PartEvent(TypedDict):
    """The only part of an item begins or is done."""

    type: Literal[
        "response.content_part.added",
        "response.content_part.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
    ]
    sequence_number: Count
    item_id: str
    output_index: Count
    content_index: NotRequired[Count]
    summary_index: NotRequired[Count]
    part: OutputText | ReasoningText


class DeltaEvent(TypedDict):
    """A piece of the answer or of the reasoning."""

    type: Literal[
        "response.output_text.delta", "response.reasoning_text.delta", "response.reasoning_summary_text.delta"
    ]
    sequence_number: Count
    item_id: str
    output_index: Count
    content_index: NotRequired[Count]
    summary_index: NotRequired[Count]
    delta: str
    logprobs: NotRequired[list[Token]]


class TextDoneEvent(TypedDict):
    """All of the answer or of the reasoning."""

    type: Literal["response.output_text.done", "response.reasoning_text.done", "response.reasoning_summary_text.done"]
    sequence_number: Count
    item_id: str
    output_index: Count
    content_index: NotRequired[Count]
    summary_index: NotRequired[Count]
    text: str
    logprobs: NotRequired[list[Token]]


class ErrorEvent(TypedDict):
    """Why the stream ends before the answer is complete."""

    type: Literal["error"]
    sequence_number: Count
    code: str | None
    message: str
    param: str | None
    error: ErrorObject


# Operations

_BODY = f"""{JSON_BODY}

What the schema does not say: a request has at most {MAX_IMAGES} images; \
items that are skipped are not checked; with text.format, a JSON schema is accepted if \
all that it requires is in the grounding object, or if it is the schema of an object with a text alone; the model must \
have the task, and the request what the task needs, as in chat. Nothing is stored."""

_EVENTS = """\
With stream: true. The events have OpenAI's names and order, and a sequence_number; there is no [DONE]. After an error \
within the stream come response.failed and an event error."""

RESPONSES = Operation(
    id="create_response",
    summary="A request to a model",
    description="OpenAI's Responses API without storage, with fields of our own as in chat.",
    tag="responses",
    method="POST",
    body={JSON: ResponsesRequest},
    body_description=_BODY,
    answers={
        200: Answer(
            "The answer, whole or as a stream of events.",
            {JSON: ResponseObject},
            headers=OF_MODELS,
            events=Events(_EVENTS, ResponseEvent | ItemEvent | PartEvent | DeltaEvent | TextDoneEvent | ErrorEvent),
        )
    },
    codes=OF_REQUESTS,
    parameters=(IDEMPOTENCY_KEY,),
)

_ID = Parameter("id", "path", "Of an earlier response.", {"type": "string"})


def _not_stored(operation_id: str, summary: str, method: str = "GET") -> Operation:
    return Operation(
        id=operation_id,
        summary=summary,
        description="Always refused: responses are not stored.",
        tag="responses",
        method=method,
        parameters=(_ID,),
        answers={},
        codes=(*OF_ROUTES, "response_not_found"),
    )


NOT_STORED = (
    ("/v1/responses/{id}", _not_stored("retrieve_response", "An earlier response")),
    ("/v1/responses/{id}", _not_stored("delete_response", "Delete an earlier response", "DELETE")),
    ("/v1/responses/{id}/cancel", _not_stored("cancel_response", "Cancel a response", "POST")),
    ("/v1/responses/{id}/input_items", _not_stored("list_input_items", "The input of an earlier response")),
)
"""Paths and operations of what needs storage."""
