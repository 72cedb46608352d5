"""Moondream's request, checked and turned into a ``vlm.types.Request``.

Decides which fields have no effect, and which cannot be honoured. The path of the route names the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from router.asgi.body import read_object
from router.asgi.format import ImageReference
from router.asgi.validation import validated
from router.config import RouterConfig
from router.conversation.ignored import some_of
from router.conversation.model_name import read_model_name
from router.conversation.prompt import check_length
from router.moondream.schema import BODIES, MoondreamBody, QueryBody, Settings
from router.moondream.tasks import path_of, sampling_of, task_of
from vlm.errors import InvalidImage, InvalidRequest, ModelNotFound, UnsupportedTask, VlmError
from vlm.models.cards import cards
from vlm.types import Request, Task

Json = dict[str, Any]

API = "moondream"
"""Whose routes these are, as cards name it."""
IMPOSSIBLE = ("variant", "settings.variant")
"""Known fields that cannot be honoured: a variant of the model is another model."""


@dataclass(frozen=True, slots=True)
class ParsedMoondream:
    """A body whose fields are valid, before its image has been loaded.

    Attributes:
        body: The body as a model.
        model: Canonical name of the model that is to answer.
        ignored: Paths of the fields that have no effect.
    """

    body: MoondreamBody
    model: str
    ignored: tuple[str, ...]

    @property
    def images(self) -> Sequence[ImageReference]:
        """The image, if there is one."""
        url = self.body.image_url
        return () if url is None else (ImageReference(url, "image_url"),)

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of the answer, where the request says it."""
        return sampling_of(self.body.settings).max_tokens


@dataclass(frozen=True, slots=True)
class MoondreamRequest:
    """A request that can be sent to a model. Without the body, whose image would be kept until the answer ends.

    Attributes:
        model: Canonical name of the model that is to answer.
        request: The request to the model.
        task: Its task.
        unused: Paths of the fields of the body that have no effect.
        names_model: Whether the body names the model.
    """

    model: str
    request: Request
    task: Task
    unused: tuple[str, ...]
    names_model: bool

    def ignored(self, by_model: Sequence[str]) -> tuple[str, ...]:
        """Paths of all fields that have no effect; ``by_model`` are those that the model did not use."""
        return tuple(dict.fromkeys((*self.unused, *(path_of(name, self.task) for name in by_model))))

    def located(self, error: VlmError) -> VlmError:
        """``error`` from the model, with the path of a field of the body."""
        message, param = error.message, error.param
        if isinstance(error, UnsupportedTask) and param == "task":
            message, param = _lacks(self.model, self.task.name), "model"
        elif isinstance(error, ModelNotFound) and not self.names_model:
            message, param = f"{message} The request does not name a model: send the name of one as model.", "model"
        elif param is not None:
            param = path_of(param, self.task)
        elif isinstance(error, InvalidImage):
            param = "image_url"
        return error.located(message, param)


def parse_request(task: str, body: bytes, config: RouterConfig) -> ParsedMoondream:
    """The first phase of reading a request: what can be known without its image. CPU work only.

    Args:
        task: The last part of the route's path.
        body: The request's body.
        config: The router's settings.

    Raises:
        InvalidRequest: With the path of the field at fault.
    """
    raw = read_object(body)
    read = validated(BODIES[task], raw)
    if isinstance(read, QueryBody):
        check_length(len(read.question), "question", config)
    drop = config.drop_params if read.drop_params is None else read.drop_params
    return ParsedMoondream(read, _model_of(read, task, config), tuple(_unused(raw, BODIES[task], drop=drop)))


def build_request(parsed: ParsedMoondream, images: Sequence[bytes]) -> MoondreamRequest:
    """The second phase, once the image is there. CPU work only.

    Raises:
        InvalidRequest: With the path of the field at fault.
    """
    body = parsed.body
    task = task_of(body)
    request = Request(
        images[0] if images else None,
        task=task,
        sampling=sampling_of(body.settings),
        stream=bool(getattr(body, "stream", None)),
    )
    return MoondreamRequest(parsed.model, request, task, parsed.ignored, names_model=body.model is not None)


def _model_of(body: MoondreamBody, task: str, config: RouterConfig) -> str:
    if body.model is None:
        return _model_of_api()
    name = read_model_name(body.model, config)
    if name.task not in (None, task):
        raise InvalidRequest(
            f"The model's name asks for the task {name.task!r}, and this route is for {task!r}: leave out what is "
            "behind the colon.",
            "model",
            "invalid_value",
        )
    return name.model


@cache
def _model_of_api() -> str:
    return next((card.name for card in cards().values() if card.api == API), API)


def _unused(raw: Json, kind: type[MoondreamBody], *, drop: bool) -> Iterator[str]:
    """Paths of the fields that the route does not have; an error for one that asks for the impossible."""
    settings = raw.get("settings") or {}
    unknown = [
        *(name for name, value in raw.items() if _asks(value) and name not in kind.model_fields),
        *(f"settings.{name}" for name, value in settings.items() if _asks(value) and name not in Settings.model_fields),
    ]
    impossible = next((path for path in unknown if path in IMPOSSIBLE), None)
    if impossible is not None and not drop:
        raise InvalidRequest(
            f"{impossible} is not supported, since no variants of models are served; leave it out, or send "
            "drop_params: true to have it ignored.",
            impossible,
            "unsupported_parameter",
        )
    yield from some_of(unknown)


def _asks(value: object) -> bool:
    """Whether a field asks for anything."""
    return value is not None and value is not False


def _lacks(model: str, task: str) -> str:
    """What to say of a model without a task; the route leaves no choice among its other tasks."""
    names = [card.name for card in cards().values() if any(one.name == task for one in card.tasks)]
    return f"{model[:128]} does not have the task {task!r}. Name a model that has it as model: {', '.join(names)}."
