"""Who answers an examination: an engine in this process, or a running gigarouter over HTTP.

Owns the two ways to ask, and the way back from the router's JSON. Knows nothing of what is asked or how it is marked,
and of the router only what every client does.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from training.evaluation.metrics import Answer
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import VlmError
from vlm.loading import load
from vlm.types import Box, Detection, Point, Polygon, Request, Sampling, Task

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionContentPartParam

Json = dict[str, Any]

_BATCH = 48
_IN_FLIGHT = 16
_RETRIES = 8
"""Before each the client waits as the server says: a second where it is full, two where a model is not ready."""


class CannotExamine(VlmError):
    """Nobody can be asked; the message says what to do."""


class Asker(Protocol):
    """One model that can be asked, by many at a time."""

    async def ask(self, request: Request) -> Answer:
        """The answer with the model's own settings.

        Raises:
            VlmError: There is none.
        """
        ...


# In this process


class EngineAsker:
    """An engine; a few requests wait at a time, so that it always has a batch to fill."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._gate = asyncio.Semaphore(2 * _BATCH)

    async def ask(self, request: Request) -> Answer:
        """See :class:`Asker`."""
        async with self._gate:
            grounding = (await self._engine.complete(request)).grounding
        return Answer(grounding.text or "", grounding.detections)


@contextmanager
def in_process(folder: Path) -> Iterator[EngineAsker]:
    """The checkpoint in ``folder``, in single precision on the CPU.

    Raises:
        CheckpointError: It cannot be loaded.
    """
    waiting = 16 * _BATCH  # a request takes a place for each of its labels
    config = EngineConfig(max_batch=_BATCH, max_waiting=waiting, cache_bytes=256 * 1024**2)
    with Engine(load(folder, dtype="float32", device="cpu"), config) as engine:
        yield EngineAsker(engine)


# Over HTTP


class HttpAsker:
    """One model of a running gigarouter, asked through OpenAI's client, which tries again where the server is full."""

    def __init__(self, client: AsyncOpenAI, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._gate = asyncio.Semaphore(_IN_FLIGHT)

    async def ask(self, request: Request) -> Answer:
        """See :class:`Asker`.

        Raises:
            CannotExamine: The server is gone, refuses the request, or is no gigarouter.
        """
        assert request.sampling == Sampling(), "examinations leave the settings to the checkpoint"
        assert not request.tasks, "examinations ask one thing at a time"
        async with self._gate:
            with _explained(self._url):
                answer = await self._client.chat.completions.create(
                    model=self._model,
                    messages=[{"role": "user", "content": _content(request)}],
                    extra_body={} if request.task is None else {"task": task_json(request.task)},
                )
        return _read(answer, self._url)


class Server:
    """A gigarouter at an address."""

    def __init__(self, client: AsyncOpenAI, url: str) -> None:
        self._client = client
        self._url = url

    async def models(self) -> tuple[str, ...]:
        """The names of what it serves, ready or not.

        Raises:
            CannotExamine: It does not answer, or is no gigarouter.
        """
        with _explained(self._url):
            listed = await self._client.with_options(max_retries=0).get("/models", cast_to=object)
        if not (isinstance(listed, dict) and isinstance(listed.get("data"), list)):
            raise _stranger(self._url)
        return tuple(str(entry["id"]) for entry in listed["data"])

    def asker(self, model: str) -> HttpAsker:
        """One of its models."""
        return HttpAsker(self._client, self._url, model)


@asynccontextmanager
async def reach(url: str) -> AsyncIterator[Server]:
    """The server at ``url``, such as ``http://127.0.0.1:8000``; nothing is sent yet.

    Raises:
        CannotExamine: OpenAI's client is not installed.
    """
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise CannotExamine("Asking over HTTP needs OpenAI's client: pip install 'openai>=3,<4'.") from error
    root = url.rstrip("/").removesuffix("/v1")
    async with AsyncOpenAI(base_url=f"{root}/v1", api_key="none", max_retries=_RETRIES) as client:
        yield Server(client, root)


# What is sent


def task_json(task: Task) -> Json:
    """The body's ``task``."""
    return {
        "name": task.name,
        "labels": list(task.labels),
        "text": task.text,
        "region": None if task.region is None else _place(task.region),
        "length": task.length,
        "max_objects": task.max_objects,
        "reasoning": task.reasoning,
        "references": [_place(one) for one in task.references],
        "threshold": task.threshold,
    }


def _place(place: Point | Box) -> Json:
    if isinstance(place, Point):
        return {"point": [place.x, place.y]}
    return {"box": [place.x_min, place.y_min, place.x_max, place.y_max]}


def _content(request: Request) -> list[ChatCompletionContentPartParam]:
    """The image, and after it the prompt if there is one: the model makes something of an empty text, too."""
    parts: list[ChatCompletionContentPartParam] = []
    if request.image is not None:
        data = base64.b64encode(request.image).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    if request.prompt:
        parts.append({"type": "text", "text": request.prompt})
    return parts


# What comes back


def read_detection(found: Json) -> Detection:
    """One of a grounding's ``objects``, in its normalised coordinates."""
    box, point, quad, polygons = (found[name] for name in ("box", "point", "quad", "polygons"))
    return Detection(
        found["kind"],
        label=found["label"],
        text=found["text"],
        score=found["score"],
        box=box and Box(*box),
        point=point and Point(*point),
        quad=quad and _corners(quad),
        polygons=None if polygons is None else tuple(map(_corners, polygons)),
        spans=tuple((start, end) for start, end in found["spans"]),
    )


def _corners(places: Sequence[Sequence[float]]) -> Polygon:
    return tuple(Point(x, y) for x, y in places)


def _read(answer: ChatCompletion, url: str) -> Answer:
    """The text is the grounding's, for the message's own spells geometry out as JSON where there are no words."""
    grounding = (answer.choices[0].message.model_extra or {}).get("grounding")
    if grounding is None:
        raise _stranger(url)
    return Answer(grounding["text"] or "", tuple(map(read_detection, grounding["objects"])))


# What goes wrong


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """The client's errors as sentences that say what to do."""
    from openai import APIConnectionError, APIStatusError

    try:
        yield
    except APIConnectionError as error:
        raise CannotExamine(
            f"No server answers at {url}: start one with `make serve`, or give --url the address of one that runs."
        ) from error
    except APIStatusError as error:
        raise CannotExamine(f"{url} answers with status {error.status_code}: {_said(error)}") from error


def _said(error: APIStatusError) -> str:
    """OpenAI's client keeps the ``error`` object of the answer as the body, if there was one."""
    return str(error.body.get("message", error.message)) if isinstance(error.body, dict) else error.message


def _stranger(url: str) -> CannotExamine:
    return CannotExamine(
        f"What answers at {url} is no gigarouter: start one with `make serve`, and give --url its address."
    )
