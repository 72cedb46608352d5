"""A conversation that names several models, or leaves the choice to the router; and the same asked of one of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from router.composition.routing_report import Report
from router.composition.wanted import MODES, Mode, Wanted
from router.config import RouterConfig
from router.conversation.fields import ModelBody
from router.conversation.model_name import read_model_name
from router.conversation.request import ParsedConversation
from router.conversation.response_format import is_raw
from vlm.errors import InvalidRequest
from vlm.models.native_prompts import native_prompt

_ROUTING = ("models", "prefer", "max_price", "dry_run", "min_confidence")

_OF_ONE_TASK = ("compare", "cascade")
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
        min_confidence=body.min_confidence,
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
    if mode not in _OF_ONE_TASK:
        return
    if parsed.n > 1:
        raise InvalidRequest(f"{mode} takes one answer of each model: leave n out.", "n", "invalid_value")
    if body.tasks is not None:
        raise InvalidRequest(f"{mode} takes one task: send task in place of tasks.", "tasks", "invalid_value")


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
