"""The answers as types, key by key: what the document says of them, and what tests hold every answer against.

A key that is always there is required, and null where it does not apply; ``NotRequired`` keys are absent instead. A
later version may add keys.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from router.conversation.tier import ServedTier
from router.openapi.schemas import GROUNDING, Says

Grounding = Annotated[dict[str, Any], WithJsonSchema(GROUNDING)]
Count = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0)]
FinishReason = Literal["stop", "length"]
UnixSeconds = Annotated[int, Field(ge=0), Says("Seconds since 1970.")]


# Errors


class ErrorObject(TypedDict):
    """OpenAI's error object."""

    message: Annotated[str, Says("What is wrong and what to do, for people.")]
    type: Literal[
        "invalid_request_error", "server_error", "insufficient_quota", "requests", "images", "tokens", "concurrent"
    ]
    param: Annotated[str | None, Says("Path of the field at fault, as messages[0].content[1].image_url.url.")]
    code: Annotated[str | None, Says("What is wrong, for programs.")]


class ErrorBody(TypedDict):
    """Every answer with a status from 400 on; in a stream, the event that ends it early."""

    error: ErrorObject


# What several formats have


class RenderedObjects(TypedDict):
    """The objects in the format that was asked for with ``grounding_format``."""

    name: Annotated[str, Says("The format's name, as in the request.")]
    value: Annotated[Any, Says("In that format: an object or a list.")]
    parts: Annotated[list[Any], Says("With several tasks the value for each of them, in order; else empty.")]


class TimingsObject(TypedDict):
    """Times in milliseconds."""

    prepare_ms: Annotated[Milliseconds, Says("To decode, resize and tokenise the request.")]
    queue_ms: Annotated[Milliseconds, Says("From then until it first ran.")]
    first_token_ms: Annotated[Milliseconds, Says("From then, queueing included, until its first token.")]
    total_ms: Annotated[Milliseconds, Says("From the beginning to the end, preparing included.")]


class RoutedCall(TypedDict):
    """A model that was asked, or was not."""

    model: str
    status: Annotated[
        Literal["asked", "answered", "failed", "not_asked", "would_ask"],
        Says("would_ask in a dry run; not_asked says why in reason."),
    ]
    reason: Annotated[str | None, Says("The code of its error, or why it was not asked.")]
    latency_ms: Annotated[Milliseconds | None, Says("Until the end of its answer, or its error.")]
    cost_usd: Annotated[float | None, Says("US dollars; null where its price is not known.")]
    calls: Annotated[Count, Says("How often it was asked: in a pipeline, once for each object.")]
    failed_calls: Annotated[Count, Says("How many of these gave no answer.")]
    confidence: NotRequired[Annotated[float | None, Says("With cascade, of its answer.")]]
    min_confidence: NotRequired[Annotated[float | None, Says("With cascade, what its answer was held against.")]]


class Routing(TypedDict):
    """Which models had to do with the request."""

    requested: Annotated[str, Says("The model as the request names it.")]
    mode: Literal["fallback", "auto", "compare", "consensus", "cascade", "pipeline"]
    chosen: Annotated[str | None, Says("The model whose answer it is; null for several.")]
    why: Annotated[str, Says("Why in this order, in words.")]
    tried: Annotated[list[RoutedCall], Says("In the order in which they were asked.")]
    cost_usd: Annotated[float | None, Says("Of all calls together; null where a price is not known.")]
    dry_run: bool


class CallUsage(TypedDict):
    """Tokens that one model read and wrote."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count


class CallError(TypedDict):
    """Why one of several models did not answer."""

    code: str
    message: str


class CallResult(TypedDict):
    """What one of several models took."""

    model: str
    latency_ms: Milliseconds | None
    usage: CallUsage | None
    cost_usd: float | None
    error: CallError | None


class Extras(TypedDict):
    """What this server says beside the answer."""

    request_id: Annotated[str, Says("As in the header x-request-id.")]
    task_resolution: Annotated[
        Literal["task", "native", "foreign", "model", "plain", "default"], Says("How the task was found.")
    ]
    image_cache: Annotated[
        Literal["hit", "partial", "miss"] | None,
        Says("Whether the images had been encoded before, all or some of them; null without an image."),
    ]
    ignored: Annotated[list[str], Says("Paths of what in the request was not used.")]
    timings: TimingsObject
    routing: NotRequired[Annotated[Routing, Says("If the request names several models, or auto.")]]
    results: NotRequired[Annotated[list[CallResult], Says("With compare and consensus, for each model.")]]


# Chat completions


class TopToken(TypedDict):
    """One of the likeliest tokens of a step."""

    token: Annotated[str, Says("Its text; bytes that are not whole characters are spelled as \\xf0.")]
    logprob: float
    bytes: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Says("The same text in UTF-8.")]


class Token(TopToken):
    """A generated token and its log-probability before any penalty, bias or temperature."""

    top_logprobs: list[TopToken]


class Logprobs(TypedDict):
    """The tokens of an answer, special tokens and the end included."""

    content: list[Token]
    refusal: None


class AssistantMessage(TypedDict):
    """An answer."""

    role: Literal["assistant"]
    content: Annotated[str, Says("The answer's text, or JSON; see response_format and task.")]
    refusal: None
    reasoning_content: NotRequired[Annotated[str, Says("What the model generated before its answer.")]]
    grounding: Grounding
    grounding_format: NotRequired[RenderedObjects]


class Choice(TypedDict):
    """One of ``n`` answers."""

    index: Count
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: Annotated[Logprobs | None, Says("With logprobs, else null.")]
    token_ids: NotRequired[Annotated[list[Count], Says("The ids of the tokens, with logprobs.")]]
    model: NotRequired[Annotated[str, Says("With compare, whose answer it is.")]]


class PromptTokensDetails(TypedDict):
    image_tokens: Count
    text_tokens: Count
    cached_tokens: Annotated[Count, Says("Those of images that had been encoded for an earlier request.")]


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: Count


class CompletionUsage(TypedDict):
    """Tokens read and written."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    cost: NotRequired[Annotated[float, Says("US dollars; absent where the price is not known.")]]


class ChatCompletion(TypedDict):
    """A whole answer to a chat request."""

    id: str
    object: Literal["chat.completion"]
    created: UnixSeconds
    model: Annotated[str, Says("Canonical name of the model that answered.")]
    system_fingerprint: Annotated[str | None, Says("What the operator has configured.")]
    service_tier: NotRequired[Annotated[ServedTier, Says("How it was served, where the request has service_tier.")]]
    choices: Annotated[list[Choice], Field(min_length=1)]
    usage: CompletionUsage
    x_gigarouter: Extras


class Delta(TypedDict):
    """What an event adds to an answer; the grounding comes once, with the finish reason."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    reasoning_content: NotRequired[str]
    grounding: NotRequired[Grounding]
    grounding_format: NotRequired[RenderedObjects]


class ChunkChoice(TypedDict):
    """A part of one of ``n`` answers."""

    index: Count
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None
    token_ids: NotRequired[list[Count]]
    model: NotRequired[Annotated[str, Says("With compare, beside the finish_reason.")]]


class ChatCompletionChunk(TypedDict):
    """One event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: UnixSeconds
    model: str
    system_fingerprint: str | None
    service_tier: NotRequired[ServedTier]
    choices: Annotated[list[ChunkChoice], Says("Empty in the event that has the usage.")]
    usage: NotRequired[Annotated[CompletionUsage | None, Says("With include_usage: null in all events but the last.")]]
    x_gigarouter: NotRequired[Annotated[Extras, Says("In the event that has the last finish_reason.")]]
