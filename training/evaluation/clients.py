"""Clients for an evaluation: an engine in this process, or a running gigarouter over HTTP.

The HTTP client uses OpenAI's Python package and the public API only, as any other client of the router does.
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

_MAX_BATCH = 48
_MAX_IN_FLIGHT = 16
_MAX_RETRIES = 8
"""Before each retry, the client waits as long as the server asks: 1 s if it is full, 2 s if a model is not ready."""


class EvaluationError(VlmError):
    """The evaluation cannot run; the message says what to do."""


class Client(Protocol):
    """Sends requests to one model; any number may be in progress at a time."""

    async def answer(self, request: Request) -> Answer:
        """The model's answer, with the sampling settings of its checkpoint.

        Raises:
            VlmError: The request failed.
        """
        ...


# In this process


class EngineClient:
    """Sends requests to an engine; twice the batch size in flight keeps its batches full."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._in_flight = asyncio.Semaphore(2 * _MAX_BATCH)

    async def answer(self, request: Request) -> Answer:
        """See :class:`Client`."""
        async with self._in_flight:
            grounding = (await self._engine.complete(request)).grounding
        return Answer(grounding.text or "", grounding.detections)


@contextmanager
def in_process(folder: Path) -> Iterator[EngineClient]:
    """A client of the checkpoint in ``folder``, loaded in float32 on the CPU.

    Raises:
        CheckpointError: It cannot be loaded.
    """
    max_waiting = 16 * _MAX_BATCH  # a request with several labels counts once per label
    config = EngineConfig(max_batch=_MAX_BATCH, max_waiting=max_waiting, cache_bytes=256 * 1024**2)
    with Engine(load(folder, dtype="float32", device="cpu"), config) as engine:
        yield EngineClient(engine)


# Over HTTP


class HttpClient:
    """Sends requests to one model of a running gigarouter; OpenAI's client retries them while the server is full."""

    def __init__(self, client: AsyncOpenAI, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._in_flight = asyncio.Semaphore(_MAX_IN_FLIGHT)

    async def answer(self, request: Request) -> Answer:
        """See :class:`Client`.

        Raises:
            EvaluationError: The server cannot be reached, rejects the request, or is not a gigarouter.
        """
        assert request.sampling == Sampling(), "evaluations use the sampling settings of the checkpoint"
        assert not request.tasks, "evaluations send one task per request"
        async with self._in_flight:
            with _evaluation_errors(self._url):
                completion = await self._client.chat.completions.create(
                    model=self._model,
                    messages=[{"role": "user", "content": _content(request)}],
                    extra_body={} if request.task is None else {"task": task_json(request.task)},
                )
        return _read_answer(completion, self._url)


class Server:
    """A gigarouter at a URL."""

    def __init__(self, client: AsyncOpenAI, url: str) -> None:
        self._client = client
        self._url = url

    async def models(self) -> tuple[str, ...]:
        """The names of the models that it serves, whether they are ready or not.

        Raises:
            EvaluationError: The server cannot be reached, or is not a gigarouter.
        """
        with _evaluation_errors(self._url):
            body = await self._client.with_options(max_retries=0).get("/models", cast_to=object)
        if not (isinstance(body, dict) and isinstance(body.get("data"), list)):
            raise _not_a_gigarouter(self._url)
        return tuple(str(entry["id"]) for entry in body["data"])

    def client(self, model: str) -> HttpClient:
        """A client of one of its models."""
        return HttpClient(self._client, self._url, model)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Server]:
    """The server at ``url``, such as ``http://127.0.0.1:8000``. Sends nothing before the first request.

    Raises:
        EvaluationError: OpenAI's client is not installed.
    """
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise EvaluationError("An evaluation over HTTP needs OpenAI's client: pip install 'openai>=3,<4'.") from error
    root = url.rstrip("/").removesuffix("/v1")
    async with AsyncOpenAI(base_url=f"{root}/v1", api_key="none", max_retries=_MAX_RETRIES) as client:
        yield Server(client, root)


# Request to JSON


def task_json(task: Task) -> Json:
    """The ``task`` object of a request's body."""
    return {
        "name": task.name,
        "labels": list(task.labels),
        "text": task.text,
        "region": None if task.region is None else _region_json(task.region),
        "length": task.length,
        "max_objects": task.max_objects,
        "reasoning": task.reasoning,
        "references": [_region_json(one) for one in task.references],
        "threshold": task.threshold,
    }


def _region_json(region: Point | Box) -> Json:
    if isinstance(region, Point):
        return {"point": [region.x, region.y]}
    return {"box": [region.x_min, region.y_min, region.x_max, region.y_max]}


def _content(request: Request) -> list[ChatCompletionContentPartParam]:
    """The image, then the prompt if there is one: a model may answer an empty text differently from no text."""
    parts: list[ChatCompletionContentPartParam] = []
    if request.image is not None:
        data = base64.b64encode(request.image).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    if request.prompt:
        parts.append({"type": "text", "text": request.prompt})
    return parts


# JSON to answer


def read_detection(item: Json) -> Detection:
    """One element of the ``objects`` of a grounding, by its normalised coordinates."""
    box, point, quad, polygons = (item[name] for name in ("box", "point", "quad", "polygons"))
    return Detection(
        item["kind"],
        label=item["label"],
        text=item["text"],
        score=item["score"],
        confidence=item.get("confidence"),
        box=box and Box(*box),
        point=point and Point(*point),
        quad=quad and _corners(quad),
        polygons=None if polygons is None else tuple(map(_corners, polygons)),
        spans=tuple((start, end) for start, end in item["spans"]),
    )


def _corners(coordinates: Sequence[Sequence[float]]) -> Polygon:
    return tuple(Point(x, y) for x, y in coordinates)


def _read_answer(completion: ChatCompletion, url: str) -> Answer:
    """Take the text from the grounding: the message's own text is JSON where the answer is geometry alone."""
    grounding = (completion.choices[0].message.model_extra or {}).get("grounding")
    if grounding is None:
        raise _not_a_gigarouter(url)
    return Answer(grounding["text"] or "", tuple(map(read_detection, grounding["objects"])))


# Errors


@contextmanager
def _evaluation_errors(url: str) -> Iterator[None]:
    """Turn the errors of OpenAI's client into messages that say what to do."""
    from openai import APIConnectionError, APIStatusError

    try:
        yield
    except APIConnectionError as error:
        raise EvaluationError(
            f"No server answers at {url}: start one with `make serve`, or give --url the address of a running one."
        ) from error
    except APIStatusError as error:
        raise EvaluationError(f"{url} answers with status {error.status_code}: {_message(error)}") from error


def _message(error: APIStatusError) -> str:
    """The server's message: OpenAI's client keeps the ``error`` object of the response, if any, as the body."""
    return str(error.body.get("message", error.message)) if isinstance(error.body, dict) else error.message


def _not_a_gigarouter(url: str) -> EvaluationError:
    return EvaluationError(
        f"The server at {url} is not a gigarouter: start one with `make serve`, and give --url its address."
    )
