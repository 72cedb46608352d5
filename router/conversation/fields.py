"""The JSON that every format of conversations has: which fields there are, their types and their ranges.

What they mean together is in ``router.conversation.request``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, FailFast, Field, StringConstraints
from pydantic_core import PydanticCustomError

from router.asgi.validation import Checked
from router.composition.wanted import MAX_CROPS, MAX_MODELS, MAX_STAGES, Preference
from router.conversation.tier import ServiceTier
from vlm.sampling import MAX_BIASES, MAX_TOP_LOGPROBS
from vlm.types import MAX_TASKS, CaptionLength

MAX_LABELS = 64
MAX_REFERENCES = 64
MAX_STOPS = 4
MAX_PARTS = 64
"""Of a message."""
MAX_MESSAGES = 4096
"""Chat interfaces resend the whole conversation; all but two of its messages are skipped. The number of items in the
body bounds the work in any case."""


IMAGE_URL = r"^([dD][aA][tT][aA]:|[hH][tT][tT][pP][sS]?:)"
"""How the URL of an image begins; what is wrong with others, the loader says better than a pattern."""
DECIMAL_ID = "^(0|[1-9][0-9]{0,9})$"


Url = Annotated[
    str,
    Field(
        description="A data URL with base64 (data:image/png;base64,...), or an http or https URL that the server "
        "downloads. PNG, JPEG, WebP, GIF or BMP.",
        json_schema_extra={"pattern": IMAGE_URL},
    ),
]


def one_given(*names: str) -> dict[str, Any]:
    """Exactly one of these fields has a value, which is checked where they are read."""
    given: dict[str, Any] = {"not": {"type": "null"}}
    return {"oneOf": [{"required": [name], "properties": {name: given}} for name in names]}


def _as_stops(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_task(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _token_id(key: str) -> str:
    if not re.fullmatch(DECIMAL_ID, key):
        raise PydanticCustomError("token_id", "must have token ids as keys, whole numbers such as 17")
    return key


def _empty_if_null(value: object) -> object:
    return [] if value is None else value


def _false_if_null(value: object) -> object:
    return False if value is None else value


def _normal_if_null(value: object) -> object:
    return "normal" if value is None else value


Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TaskName = Annotated[str, StringConstraints(min_length=1, max_length=64)]

HAIR = 0.01
"""How far outside the image a location may be, as a share of the image's side: it then means the edge. Sums of rounded
numbers end there, and so do boxes that other models give. What is farther away is meant for another image."""


def _within(share: float) -> float:
    if not -HAIR <= share <= 1 + HAIR:
        raise PydanticCustomError("outside", "must be from 0 to 1")
    return min(max(share, 0.0), 1.0)


Share = Annotated[float, Field(ge=0, le=1)]
MaxObjects = Annotated[int, Field(ge=1, le=1000)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
MaxTokens = Annotated[int, Field(ge=1, lt=2**31)]
Coordinate = Annotated[float, AfterValidator(_within), Field(json_schema_extra={"minimum": 0, "maximum": 1})]
SharePair = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
ShareCorners = Annotated[list[Coordinate], Field(min_length=4, max_length=4)]
PixelPair = Annotated[list[float], Field(min_length=2, max_length=2)]
PixelCorners = Annotated[list[float], Field(min_length=4, max_length=4)]


class Region(Checked):
    """A box, [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2: from 0 to 1, or in pixels of the upright image."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=one_given("box", "box_px"))

    box: ShareCorners | None = None
    box_px: PixelCorners | None = None


class Reference(Region):
    """A box or a point, in either frame."""

    model_config = ConfigDict(json_schema_extra=one_given("box", "box_px", "point", "point_px"))

    point: SharePair | None = None
    point_px: PixelPair | None = None


Labels = Annotated[list[Word], Field(max_length=MAX_LABELS)]
References = Annotated[list[Reference], Field(max_length=MAX_REFERENCES)]


class TaskBody(Checked):
    """What to do with the image. A key that the task does not use is reported in x_gigarouter.ignored."""

    model_config = ConfigDict(extra="forbid")

    name: TaskName = Field(description="A task of the model, as GET /v1/models lists them.")
    labels: Annotated[Labels, FailFast(), BeforeValidator(_empty_if_null, json_schema_input_type=Labels | None)] = (
        Field(
            default_factory=list,
            description="What to look for; each label is a generation of its own.",
            json_schema_extra={"default": []},
        )
    )
    text: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None,
        description="The question, the text to ground or segment, or the beginning of a caption; else the prompt.",
    )
    region: Region | None = Field(default=None, description="The part of the image that the task is about.")
    length: Annotated[CaptionLength, BeforeValidator(_normal_if_null, json_schema_input_type=CaptionLength | None)] = (
        Field(default="normal", description="Length of a caption.")
    )
    max_objects: MaxObjects | None = Field(
        default=None, description="Maximum number of objects for each label, where the model has one."
    )
    threshold: Share | None = Field(default=None, description="Leave out objects with a lower score.")
    reasoning: Annotated[bool, BeforeValidator(_false_if_null, json_schema_input_type=bool | None)] = Field(
        default=False, description="Reason before answering, where the model can."
    )
    references: Annotated[
        References, FailFast(), BeforeValidator(_empty_if_null, json_schema_input_type=References | None)
    ] = Field(
        default_factory=list,
        description="The locations that a question is about.",
        json_schema_extra={"default": []},
    )


class NamedSchema(Checked):
    """A JSON schema: of the grounding object or of a part of it, or of {"text": ...}; others are refused."""

    name: Word = Field(description="Does not matter.")
    description: str | None = Field(default=None, description="Does not matter.")
    strict: bool | None = Field(default=None, description="Does not matter.")
    schema_: dict[str, Any] | None = Field(
        default=None, alias="schema", description="By default that of the grounding object."
    )


class ResponseFormat(Checked):
    """The form of the content."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(default=None, description="Required by the type json_schema.")


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
TokenId = Annotated[str, AfterValidator(_token_id), Field(json_schema_extra={"pattern": DECIMAL_ID})]
Biases = Annotated[
    dict[TokenId, Annotated[float, Field(json_schema_extra={"minimum": -100, "maximum": 100})]],
    Field(max_length=MAX_BIASES, json_schema_extra={"additionalProperties": False}),
]
StopStrings = Annotated[list[Word], Field(max_length=MAX_STOPS)]
Stops = Annotated[StopStrings, BeforeValidator(_as_stops, json_schema_input_type=Word | StopStrings)]
AnyTask = Annotated[TaskBody, BeforeValidator(_as_task, json_schema_input_type=TaskName | TaskBody)]
AnyTasks = Annotated[list[AnyTask], Field(min_length=1, max_length=MAX_TASKS)]


def optional(description: str, *, default: object = None) -> Any:
    """A field that may be left out or null; ``default`` is what it then means, where that does not depend."""
    extra: Any = None if default is None else {"default": default}
    return Field(default=None, description=description, json_schema_extra=extra)


# The keys of vlm.grounding_formats.FORMATS; a test compares them.
GroundingFormat = Literal["moondream", "qwen", "roboflow", "coco", "florence", "lmms-eval"]


class MaxPrice(Checked):
    """The most that an answer may cost."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[float, Field(ge=0)] = Field(description="US dollars for one image.")


class StageBody(Checked):
    """A step of a pipeline."""

    model_config = ConfigDict(extra="forbid")

    model: Word = Field(description="A name from GET /v1/models, or an alias.")
    task: AnyTask = Field(description="A task of the model, by name or with its arguments.")
    for_each: Literal["objects"] | None = Field(
        default=None, description="From the second step on: it is done for each object that the step before has found."
    )
    crop: Annotated[float, Field(ge=1, le=8)] | None = Field(
        default=None,
        description="The part of the image that is asked about, as a multiple of the object's width and height: 1 by "
        "default. Not for tasks that take a region, which get the object's box.",
    )
    limit: Annotated[int, Field(ge=1, le=MAX_CROPS)] | None = Field(
        default=None, description="The most objects that are asked about, in their order."
    )


class ModelBody(Checked):
    """What every format of conversations takes: the model, how its tokens are chosen, and our own fields."""

    model: Word = Field(
        description="A name from GET /v1/models, or an alias; a task may follow behind a colon, as in NAME:caption. "
        "auto, compare, consensus, cascade and pipeline stand for several models."
    )
    models: Annotated[list[Word], Field(min_length=1, max_length=MAX_MODELS)] | None = optional(
        "Models that are asked in turn if the one before them cannot answer; with auto and compare, those among which "
        "is chosen, or that are compared: all by default; with cascade, in which order they are asked."
    )
    min_confidence: Share | None = optional(
        "The least confidence with which cascade takes an answer and asks no further model; by default what keeps the "
        "accuracy of the models, as far as they were calibrated for the task."
    )
    min_votes: Annotated[int, Field(ge=1, le=MAX_MODELS)] | None = optional(
        "With the model consensus: how many models must agree on an object; by default more than half of those that "
        "answer."
    )
    prefer: Preference | None = optional("By what auto chooses.", default="good")
    pipeline: Annotated[list[StageBody], Field(min_length=1, max_length=MAX_STAGES)] | None = optional(
        "With the model pipeline: steps, of which each further one is about the objects of the one before."
    )
    max_price: MaxPrice | None = optional("Leave out models that cost more, or whose price is not known.")
    dry_run: bool | None = optional("Say which models would be asked, and ask none.", default=False)
    stream: bool | None = optional("Send the answer as server-sent events.", default=False)
    temperature: Temperature | None = optional("0 is greedy.")
    top_p: TopP | None = optional("Sample from the most likely tokens that together have this probability.")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = optional(
        "The same seed gives the same answer, whatever else is in the batch; random by default."
    )
    stop: Stops | None = optional("The answer ends before the first of these strings.")
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = optional(
        "Divides the logits of tokens that occurred before, in the prompt too."
    )
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=64)] | None = optional(
        "No n-gram of this size occurs twice; 0 turns it off."
    )
    num_beams: Annotated[int, Field(ge=1, le=8)] | None = optional(
        "Beams of a beam search; above 1 it cannot be combined with a temperature above 0."
    )
    length_penalty: Annotated[float, Field(ge=-8, le=8)] | None = optional(
        "A beam's log-probability is divided by its length to this power."
    )
    early_stopping: bool | None = optional("End the search once num_beams answers are complete.")
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = optional(
        "Report so many of the likeliest tokens of each step too; above 0 it needs logprobs.", default=0
    )
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = optional(
        "Subtracted from a token's logit for each time that it is in the answer so far.", default=0
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = optional(
        "Subtracted once if the token is in the answer so far.", default=0
    )
    logit_bias: Biases | None = optional("Added to the logits of the model's token ids: -100 is never, 100 always.")
    top_k: Annotated[int, Field(ge=-1)] | None = optional(
        "Sample from so many of the most likely tokens; 0 and -1 mean all.", default=0
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = optional(
        "Leave out tokens whose probability is below this share of the most likely one's.", default=0
    )
    task: AnyTask | None = optional(
        "A task, by name or with its arguments; raw returns the model's own output as the content. By default the "
        "prompt decides."
    )
    tasks: AnyTasks | None = optional("Several tasks about the image, in place of task.")
    include_raw: bool | None = optional(
        "Put the model's own output, special tokens included, into grounding.raw.", default=False
    )
    grounding_format: GroundingFormat | None = optional("Give the objects in this format too.")
    service_tier: ServiceTier | None = optional(
        "flex lets others go first, for a while; all others are served alike.", default="auto"
    )
    drop_params: bool | None = optional(
        "Ignore fields that cannot be honoured instead of refusing the request; the default is the operator's."
    )
