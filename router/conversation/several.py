"""A conversation that names several models, or leaves the choice to the router; and the same asked of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from functools import cache

from router.composition.routing_report import Report
from router.composition.wanted import MAX_CROPS, MODES, Mode, Stage, Wanted
from router.config import RouterConfig
from router.conversation.fields import ModelBody, Region, StageBody
from router.conversation.model_name import read_model_name
from router.conversation.request import ParsedConversation
from router.conversation.response_format import RAW_TASK, is_raw
from router.conversation.tier import priority_of
from vlm.errors import InvalidRequest
from vlm.models.cards import cards
from vlm.models.native_prompts import native_prompt
from vlm.types import Box

_ROUTING = ("models", "prefer", "max_price", "dry_run", "min_confidence", "min_votes", "pipeline")

_OF_ONE_TASK = ("compare", "consensus", "cascade")
"""The modes that have one answer to one task of each model, which is named once."""


def wanted_of(parsed: ParsedConversation, config: RouterConfig) -> Wanted | None:
    """Which models a conversation is for; None where it is for the one that it names.

    Raises:
        InvalidRequest: Its fields do not go together; with the path of the one at fault.
    """
    body = parsed.body
    name = read_model_name(body.model, config)
    if name.model not in MODES and not _says_more(body):
        return None
    mode = MODES.get(name.model, "fallback")
    _check(parsed, mode)
    models, paths = _named(body, mode, config)
    return Wanted(
        requested=body.model,
        mode=mode,
        models=models,
        paths=paths,
        task=_task(parsed, name.task),
        text=parsed.question.prompt.text,
        images=len(parsed.images),
        prefer=body.prefer or "good",
        max_price=None if body.max_price is None else Decimal(str(body.max_price.image)),
        dry_run=bool(body.dry_run),
        stream=bool(body.stream),
        min_votes=body.min_votes,
        stages=tuple(_stages(body, config)),
        min_confidence=body.min_confidence,
        batch=priority_of(body.service_tier) == "batch",
    )


def alone(
    parsed: ParsedConversation, model: str, report: Report, config: RouterConfig, *, judged: bool = False
) -> ParsedConversation:
    """The same conversation for one model; its answer tells what is in ``report``.

    Where it is ``judged``, the model gives it at once and with its confidence.
    """
    task = read_model_name(parsed.body.model, config).task
    asked = model if task is None else f"{model}:{task}"
    body = parsed.body.model_copy(update={"model": asked, **dict.fromkeys(_ROUTING)})
    return replace(parsed, body=body, report=report, judged=judged)


def staged(
    parsed: ParsedConversation, stage: int, report: Report, config: RouterConfig, part: Box | None
) -> ParsedConversation:
    """A step of a pipeline as a conversation of its own.

    Args:
        parsed: The conversation.
        stage: Number of the step.
        report: What becomes of all steps.
        config: The router's settings.
        part: What it is about: the region of a task that takes one, else the part of the image; None for the whole.
    """
    step = (parsed.body.pipeline or [])[stage]
    one = alone(parsed, read_model_name(step.model, config).model, report, config)
    task = step.task
    if part is not None and takes_region(task.name):
        corners = [part.x_min, part.y_min, part.x_max, part.y_max]
        task, part = task.model_copy(update={"region": Region(box=corners)}), None
    return replace(one, body=one.body.model_copy(update={"task": task, "stream": False}), crop=part)


def unasked(parsed: ParsedConversation, model: str, report: Report, config: RouterConfig) -> ParsedConversation:
    """The same for an answer that no model gives: without images, and what can be read only with them."""
    one = alone(parsed, model, report, config)
    body = one.body.model_copy(update={"model": model, "task": None, "tasks": None})
    return replace(one, body=body, question=replace(one.question, images=()))


def _says_more(body: ModelBody) -> bool:
    """Whether a request has fields that are about several models; 0 is a confidence, too."""
    return body.min_confidence is not None or any(getattr(body, field) for field in _ROUTING)


def _check(parsed: ParsedConversation, mode: Mode) -> None:
    body = parsed.body
    if body.prefer is not None and mode != "auto":
        raise InvalidRequest("prefer is only for the model auto.", "prefer", "invalid_value")
    if body.min_confidence is not None and mode != "cascade":
        raise InvalidRequest("min_confidence is only for the model cascade.", "min_confidence", "invalid_value")
    if (body.pipeline is not None) != (mode == "pipeline"):
        raise InvalidRequest("The model pipeline and the field pipeline need each other.", "pipeline", "invalid_value")
    if mode == "pipeline":
        _check_pipeline(parsed)
    if body.min_votes is not None and mode != "consensus":
        raise InvalidRequest("min_votes is only for the model consensus.", "min_votes", "invalid_value")
    if mode in _OF_ONE_TASK:
        _check_joint(parsed, mode)


def _check_joint(parsed: ParsedConversation, mode: Mode) -> None:
    """What models can be asked together."""
    if parsed.n > 1:
        raise InvalidRequest(f"{mode} takes one answer of each model: leave n out.", "n", "invalid_value")
    if parsed.body.tasks is not None:
        raise InvalidRequest(f"{mode} takes one task: send task in place of tasks.", "tasks", "invalid_value")
    if mode != "consensus":
        return
    if parsed.logprobs:
        message = "A consensus has no log-probabilities: leave them out."
        raise InvalidRequest(message, "logprobs", "invalid_value")
    if is_raw(parsed.body) or parsed.body.include_raw:
        field = "task" if is_raw(parsed.body) else "include_raw"
        raise InvalidRequest("A consensus has no raw output: ask compare for it.", field, "invalid_value")


def _check_pipeline(parsed: ParsedConversation) -> None:
    body = parsed.body
    for field in ("models", "task", "tasks"):
        if getattr(body, field) is not None:
            raise InvalidRequest(f"The steps of a pipeline say it: leave {field} out.", field, "invalid_value")
    if parsed.n > 1:
        raise InvalidRequest("A pipeline gives one answer: leave n out.", "n", "invalid_value")
    if parsed.logprobs:
        raise InvalidRequest("A pipeline has no log-probabilities: leave them out.", "logprobs", "invalid_value")
    if len(parsed.images) != 1:
        message = f"A pipeline is about one image, and the request has {len(parsed.images)}."
        raise InvalidRequest(message, parsed.question.conversation, "invalid_value")


def _stages(body: ModelBody, config: RouterConfig) -> Iterator[Stage]:
    for index, step in enumerate(body.pipeline or ()):
        path = f"pipeline[{index}]"
        name = read_model_name(step.model, config)
        if name.task is not None:
            raise InvalidRequest(f"{path}.model names a task: send it as task.", f"{path}.model", "invalid_value")
        _check_step(step, path, first=index == 0)
        yield Stage(name.model, step.task.name, path, step.crop, step.limit or MAX_CROPS, takes_region(step.task.name))


def _check_step(step: StageBody, path: str, *, first: bool) -> None:
    if not first and step.for_each is None:
        raise InvalidRequest(
            f'{path}.for_each is required: "objects" does the step for each object that was found.',
            f"{path}.for_each",
            "missing_required_parameter",
        )
    unfit = [name for name in ("for_each", "crop", "limit") if getattr(step, name) is not None] if first else []
    if unfit:
        message = f"The first step is about the whole image: leave {unfit[0]} out."
        raise InvalidRequest(message, f"{path}.{unfit[0]}", "invalid_value")
    if step.task.name == RAW_TASK:
        raise InvalidRequest("A step needs a task by its own name.", f"{path}.task", "invalid_value")
    if not first and step.task.region is not None:
        message = "The region of a further step is that of each object: leave it out."
        raise InvalidRequest(message, f"{path}.task.region", "invalid_value")
    if step.crop is not None and takes_region(step.task.name):
        message = f"The task {step.task.name!r} takes the object's box as its region: leave crop out."
        raise InvalidRequest(message, f"{path}.crop", "invalid_value")


@cache
def takes_region(task: str) -> bool:
    """Whether a task needs a region, by the cards of the models that have it."""
    return any(one.name == task and "region" in one.needs for card in cards().values() for one in card.tasks)


def _named(body: ModelBody, mode: Mode, config: RouterConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The models by name, each with its path. The one under ``model`` comes first; one that is named twice, once."""
    named = {} if mode != "fallback" else {read_model_name(body.model, config).model: "model"}
    for index, name in enumerate(body.models or ()):
        path = f"models[{index}]"
        read = read_model_name(name, config)
        if read.task is not None:
            raise InvalidRequest(
                f"{path} names a task behind the model; one task is for all models: send it as task.",
                path,
                "invalid_value",
            )
        if read.model in named and mode in _OF_ONE_TASK:
            raise InvalidRequest(f"{path} names a model for the second time.", path, "invalid_value")
        named.setdefault(read.model, path)
    return tuple(named), tuple(named.values())


def _task(parsed: ParsedConversation, behind_colon: str | None) -> str | None:
    """The task, where it is the same to all models."""
    body = parsed.body
    if body.tasks is not None:
        return body.tasks[0].name
    if body.task is not None and not is_raw(body):
        return body.task.name
    native = native_prompt(parsed.question.prompt.text)
    return behind_colon if native is None else native.card.task
