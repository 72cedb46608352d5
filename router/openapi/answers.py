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


# Models


class ModelArchitecture(TypedDict):
    modality: str
    input_modalities: list[str]
    output_modalities: list[str]
    description: str | None


class ModelLicense(TypedDict):
    """Of the published weights, if they are what is loaded."""

    spdx: str | None
    url: str | None


class ModelTask(TypedDict):
    """A task that a model offers."""

    name: str
    native: Annotated[list[str], Says("The model's own prompts for it.")]
    outputs: Annotated[list[str], Says("What the answer holds: text, boxes, points, quads or polygons.")]
    needs: Annotated[list[str], Says("The arguments that it requires.")]


class ModelLimits(TypedDict):
    """What a request may have."""

    max_images: Count
    max_tasks: Count
    max_bytes: Count
    max_pixels: Count
    min_side: Count


class ModelState(TypedDict):
    ready: bool
    detail: str


class Model(TypedDict):
    """A model that is served; what is not known is null."""

    id: Annotated[str, Says("The name in requests; with expand=tasks also a name with a task behind a colon.")]
    object: Literal["model"]
    created: Annotated[int, Field(ge=0), Says("When the model was published, in seconds since 1970; 0 if unknown.")]
    owned_by: str
    canonical_slug: str
    aliases: Annotated[list[str], Says("Further names that requests may use.")]
    name: Annotated[str, Says("For people.")]
    description: str
    hugging_face_id: str | None
    family: Annotated[str | None, Says("The architecture.")]
    checkpoint: Annotated[str | None, Says("The weights that are loaded: a folder, or a Hugging Face id.")]
    revision: Annotated[str | None, Says("Their commit.")]
    dtype: str | None
    parameters: Annotated[Count | None, Says("Number of parameters.")]
    context_length: Annotated[Count | None, Says("Maximum number of tokens of prompt and answer together.")]
    max_model_len: Annotated[Count | None, Says("The same, under the name that vLLM uses.")]
    architecture: ModelArchitecture
    price_per_1k_images_usd: Annotated[str | None, Says("The operator's price, in US dollars.")]
    supported_parameters: Annotated[list[str], Says("Request fields that make a difference to this model.")]
    license: ModelLicense
    tasks: list[ModelTask]
    limits: ModelLimits
    coordinate_bins: Annotated[
        Annotated[list[Count], Field(min_length=2, max_length=2)] | None,
        Says("The grid, across and down, of the model's coordinates."),
    ]
    status: ModelState


class ModelList(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[Model]


# Health


class Alive(TypedDict):
    """The process is alive."""

    status: Literal["ok"]


class ModelReadiness(TypedDict):
    name: str
    ready: bool
    detail: str


class Ready(TypedDict):
    """Every configured model can answer."""

    status: Literal["ready"]
    models: list[ModelReadiness]


class NotReady(ErrorBody):
    """Some model cannot answer yet."""

    models: NotRequired[list[ModelReadiness]]


# Status


class ReplicaObject(TypedDict):
    """One process of a model."""

    id: Annotated[str, Says("Its name in the cluster's logs and metrics; empty where it has none.")]
    state: Annotated[str, Says("running once it answers; before and after that, the cluster's own word.")]


class PlacesObject(TypedDict):
    """Places for generations, as this router counts them."""

    held: Annotated[Count, Says("By requests that were let in and have not ended.")]
    worked_on: Annotated[Count, Says("At once, by all replicas; what is held beyond them waits.")]
    limit: Annotated[Count, Says("Held at most; more is refused.")]


class ErrorCount(TypedDict):
    """One error, as often as it was answered since this router started."""

    code: Annotated[str, Says("Its code; its type where it has none.")]
    status: Annotated[int, Says("Of HTTP.")]
    count: Annotated[int, Field(ge=1)]
    last_at: UnixSeconds


class ServedModel(TypedDict):
    """What is known of a model at this moment."""

    id: Annotated[str, Says("The name in requests.")]
    ready: Annotated[bool, Says("Whether it can answer.")]
    required: Annotated[bool, Says("Whether this server is not ready without it.")]
    detail: Annotated[str, Says("Its state in words.")]
    replicas: list[ReplicaObject]
    places: PlacesObject
    queue_s: Annotated[
        Annotated[float, Field(ge=0)] | None,
        Says("Seconds that a request which came now would wait for its turn; null where this is not known yet."),
    ]
    errors: Annotated[list[ErrorCount], Says("The latest first.")]


class Status(TypedDict):
    """What this router sees. It counts since it started, and several routers count each for itself."""

    object: Literal["status"]
    ready: Annotated[bool, Says("As /readyz says it.")]
    started_at: UnixSeconds
    now: UnixSeconds
    models: list[ServedModel]
    errors: Annotated[list[ErrorCount], Says("Of requests that were for no model which is served. The latest first.")]
