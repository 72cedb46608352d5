"""What the server says of itself, as types: its models, its health and its state. See :mod:`router.openapi.answers`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from router.openapi.answers import Count, ErrorBody, UnixSeconds
from router.openapi.schemas import Says

# Models


class ModelArchitecture(TypedDict):
    modality: str
    input_modalities: list[str]
    output_modalities: list[str]
    description: str | None


class TaskPricing(TypedDict):
    """What a task costs beside its image, in US dollars."""

    each: Annotated[str, Says("For each image that it is done on.")]
    output: Annotated[str, Says("For each token written.")]


class ModelPricing(TypedDict):
    """US dollars as decimal strings, for one of each."""

    prompt: Annotated[str, Says("For a token read.")]
    completion: Annotated[str, Says("For a token written, of the task where it is dearest.")]
    request: str
    image: str
    cached_image: Annotated[str, Says("For an image that had been encoded for an earlier request.")]
    tasks: dict[str, TaskPricing]


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
    pricing: Annotated[ModelPricing | None, Says("All that it costs; null where it has no price.")]
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
