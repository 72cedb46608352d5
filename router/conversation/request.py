"""A conversation that a format has parsed, turned into a ``vlm.types.Request``.

Each format spells a conversation in its own way and has a ``parse`` of its own; what comes after that is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

from accounts.money import Nano
from router.asgi.format import Demand, ImageReference
from router.charges import cost_of
from router.composition.routing_report import Report
from router.config import RouterConfig
from router.conversation.answer import ResponseMeta, ResponseOptions
from router.conversation.fields import Effort, ModelBody, TaskBody
from router.conversation.model_name import ModelName, read_model_name, task_of, uses_text
from router.conversation.question import Question
from router.conversation.response_format import ContentForm, is_raw
from router.conversation.tasks import ImageSize, read_task
from router.conversation.tier import ServedTier, priority_of, served_as
from router.images import upright_size_of
from vlm.errors import InvalidImage, InvalidRequest, VlmError
from vlm.generations import check_generations, generations
from vlm.types import Box, Completion, Request, Sampling, Task


@dataclass(frozen=True, slots=True)
class ParsedConversation:
    """A conversation whose fields are valid, before its image has been loaded.

    Attributes:
        body: The fields that all formats have.
        question: What of the conversation is the request.
        form: What the answer's ``content`` holds.
        ignored: Fields and messages of the body that have no effect.
        max_tokens: Maximum number of tokens to generate.
        n: Number of answers.
        logprobs: Report each token's log-probability.
        include_usage: Whether a stream ends with an event of token counts.
        effort: How much the model should reason.
        report: What becomes of it where several models have to do with it; None where one has.
        crop: The part of its image that is asked about.
        judged: Whether the answer is judged before it is shown, so that it is wanted whole and with its confidence.
    """

    body: ModelBody
    question: Question
    form: ContentForm
    ignored: tuple[str, ...]
    max_tokens: int | None = None
    n: int = 1
    logprobs: bool = False
    include_usage: bool = False
    effort: Effort | None = None
    report: Report | None = None
    crop: Box | None = None
    judged: bool = False

    @property
    def images(self) -> tuple[ImageReference, ...]:
        """The images that have to be loaded."""
        return self.question.images


@dataclass(frozen=True, slots=True)
class ConversationRequest:
    """A conversation as a request that can be sent to a model.

    Attributes:
        model: Canonical name.
        request: The request to the model.
        options: How the client wants its answer.
        stream: Whether the answer goes out as events.
        include_usage: Whether a stream ends with an event of token counts.
        ignored: Fields of the body that have no effect.
        image_params, prompt_param: Paths of the images and of the text in the body, for errors that are found later;
            without an image, where it would be.
        how_to_send: What to do about a missing image.
        resolution: How the router found the task, where the body does not name it; None where it does, or the model
            finds it.
        reasoning_param: Path of what asked for reasoning, other than the task.
        service_tier: How it is served, if it asks for that.
        report: What becomes of it where several models have to do with it.
        costs: What a whole answer of the model costs; None where its price is not known.
    """

    model: str
    request: Request
    options: ResponseOptions
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...]
    image_params: tuple[str, ...]
    prompt_param: str
    how_to_send: str
    resolution: Literal["model", "plain"] | None = None
    reasoning_param: str | None = None
    service_tier: ServedTier | None = None
    report: Report | None = None
    costs: Callable[[Completion], Nano | None] = lambda _: None

    def meta(self, request_id: str) -> ResponseMeta:
        """What its answer says about it."""
        report = self.report
        return ResponseMeta(
            model=report.requested if report is not None and report.is_joint else self.model,
            request_id=request_id,
            ignored=self.ignored,
            resolution=self.resolution,
            path_of=self.path_of,
            service_tier=self.service_tier,
            report=report,
            costs=self.costs,
        )

    def path_of(self, name: str) -> str:
        """The path in the body of a field of ``Request``, as the model calls it."""
        if name == "task.reasoning":
            return self.reasoning_param or (self.prompt_param if self.resolution else name)
        if self.resolution == "model" and name == "task":
            return "model"
        return self.prompt_param if name == "prompt" or (self.resolution and name.startswith("task.")) else name

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path of a field of the body in place of a field of ``Request``."""
        message, param = error.message, error.param and self.path_of(error.param)
        if param == "image" or (param is None and isinstance(error, InvalidImage)):
            param = self.image_params[0]
            if self.request.image is None and not self.request.images:
                message = f"{message} {self.how_to_send}"
        elif found := re.fullmatch(r"images\[(\d+)\]", param or ""):
            param = self.image_params[int(found[1])]
        return error.located(message, param)


@dataclass(frozen=True, slots=True)
class BuiltConversation:
    """What of :class:`~router.asgi.format.BuiltRequest` is the same for every format of conversations.

    Attributes:
        asked: The conversation.
    """

    asked: ConversationRequest

    @property
    def model(self) -> str:
        """Canonical name of the model."""
        return self.asked.model

    @property
    def request(self) -> Request:
        """The request to the model."""
        return self.asked.request

    @property
    def stream(self) -> bool:
        """Whether the answer goes out as events."""
        return self.asked.stream

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path of a field of the body."""
        return self.asked.located(error)


def demand_of(parsed: ParsedConversation, config: RouterConfig) -> Demand:
    """What a conversation asks for, counted as the engine does.

    Raises:
        InvalidRequest: It takes more generations than are answered together.
    """
    name = read_model_name(parsed.body.model, config)
    outline = _outline(name, parsed)
    try:
        check_generations(outline)
    except InvalidRequest as error:
        of_text = error.param == "task.labels" and _is_named(name, parsed)
        raise error.located(error.message, parsed.question.prompt_param if of_text else error.param) from error
    priority = priority_of(parsed.body.service_tier)
    named = outline.tasks or (() if outline.task is None else (outline.task,))
    return Demand(
        name.model,
        generations(outline),
        parsed.body.num_beams,
        priority,
        len(parsed.images),
        tuple(task.name for task in named),
        parsed.max_tokens,
    )


def _outline(name: ModelName, parsed: ParsedConversation) -> Request:
    """The request to the model with nothing but what takes generations."""
    body, number = parsed.body, len(parsed.images)
    images = (b"",) * number if number > 1 else ()
    if _is_named(name, parsed):
        return Request(None, n=parsed.n, images=images, task=task_of(name.task or "", parsed.question.prompt))
    if body.tasks is not None:
        return Request(None, n=parsed.n, images=images, tasks=tuple(map(_with_labels, body.tasks)))
    task = _named_in_body(body)
    return Request(None, n=parsed.n, images=images, task=None if task is None else _with_labels(task))


def _with_labels(task: TaskBody) -> Task:
    return Task(task.name, labels=tuple(task.labels))


def check_stream_options(options: object, *, stream: bool) -> None:
    """Raise InvalidRequest if there are options for a stream, but no stream."""
    if options is not None and not stream:
        raise InvalidRequest("stream_options is allowed only with stream: true.", "stream_options", "invalid_value")


def build_request(parsed: ParsedConversation, images: Sequence[bytes], config: RouterConfig) -> ConversationRequest:
    """The second phase, once the image is there. CPU work only.

    Raises:
        InvalidRequest, InvalidImage: With the path of the field at fault.
    """
    body, form, question = parsed.body, parsed.form, parsed.question
    name = read_model_name(body.model, config)
    request = Request(
        images[0] if len(images) == 1 else None,
        question.prompt.text,
        sampling=_sampling(parsed),
        stream=bool(body.stream) and not parsed.judged,
        n=parsed.n,
        images=tuple(images) if len(images) > 1 else (),
        priority=priority_of(body.service_tier),
        crop=parsed.crop,
    )
    named_task = _is_named(name, parsed)
    return ConversationRequest(
        model=name.model,
        request=(
            replace(request, prompt="", task=task_of(name.task or "", question.prompt))
            if named_task
            else _with_tasks(request, body, cache(lambda: _size_of(images, config, question)))
        ),
        options=ResponseOptions(
            form.content,
            include_raw=bool(body.include_raw) or form.content == "raw",
            logprobs=parsed.logprobs,
            schema=form.schema,
            grounding_format=body.grounding_format,
        ),
        stream=bool(body.stream),
        include_usage=parsed.include_usage,
        ignored=_ignored(parsed, name, named_task=named_task),
        image_params=tuple(reference.param for reference in question.images) or (question.conversation,),
        prompt_param=question.prompt_param,
        how_to_send=question.how_to_send,
        resolution="model" if named_task else None,
        service_tier=served_as(body.service_tier),
        report=parsed.report,
        costs=partial(cost_of, config.price_list, name.model, len(images), batch=request.priority == "batch"),
    )


def _is_named(name: ModelName, parsed: ParsedConversation) -> bool:
    """Whether the task is that of the model's name: a task of the body comes first, and so does a native prompt."""
    body, native = parsed.body, parsed.question.prompt.native
    return name.task is not None and not native and body.tasks is None and _named_in_body(body) is None


def _named_in_body(body: ModelBody) -> TaskBody | None:
    return None if is_raw(body) else body.task


def _ignored(parsed: ParsedConversation, model: ModelName, *, named_task: bool) -> tuple[str, ...]:
    other_task = ("model",) if model.task is not None and not named_task else ()
    without_text = named_task and not uses_text(model.task or "")
    question = parsed.question
    text = (question.prompt_param,) if without_text and question.prompt.text.strip() else question.unused_text
    return (*other_task, *parsed.ignored, *text)


def _with_tasks(request: Request, body: ModelBody, size: ImageSize) -> Request:
    if body.tasks is not None:
        if body.task is not None:
            raise InvalidRequest("task and tasks cannot be sent together: send one of them.", "tasks", "invalid_value")
        parts = (read_task(one, f"tasks[{index}]", size) for index, one in enumerate(body.tasks))
        return replace(request, tasks=tuple(parts))
    task = _named_in_body(body)
    return request if task is None else replace(request, task=read_task(task, "task", size))


def _sampling(parsed: ParsedConversation) -> Sampling:
    body = parsed.body
    return Sampling(
        max_tokens=parsed.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        stop=tuple(body.stop or ()),
        repetition_penalty=body.repetition_penalty,
        no_repeat_ngram_size=body.no_repeat_ngram_size,
        num_beams=body.num_beams,
        length_penalty=body.length_penalty,
        early_stopping=body.early_stopping,
        logprobs=parsed.logprobs or parsed.judged,
        top_logprobs=body.top_logprobs or 0,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
    )


def _size_of(images: Sequence[bytes], config: RouterConfig, question: Question) -> tuple[int, int]:
    """The size of all images, in which a point or box in pixels is meant."""
    where = question.conversation
    if not images:
        message = f"A point or box in pixels needs an image. {question.how_to_send}"
        raise InvalidRequest(message, where, "invalid_value")
    sizes = {
        upright_size_of(image, config.image_limits, reference.param)
        for image, reference in zip(images, question.images, strict=True)
    }
    if len(sizes) > 1:
        message = "A point or box in pixels needs images of one size, and these differ: give it from 0 to 1."
        raise InvalidRequest(message, where, "invalid_value")
    return sizes.pop()
