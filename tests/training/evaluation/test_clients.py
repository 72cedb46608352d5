"""An evaluation over HTTP: a real router gives the same answers as its engine, and failures have clear messages."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from router.app import create_app
from router.asgi.validation import validated
from router.backends.base import LocalBackend
from router.config import RouterConfig
from router.conversation.fields import TaskBody
from router.conversation.tasks import read_task
from tests.listening import listening
from tests.router.world import FakeBackend, words
from training.data.drawing import draw, png
from training.data.world import HELD_OUT, scene
from training.evaluate import MINIATURES, load_evaluation, main
from training.evaluation.clients import Client, EngineClient, Server, connect, read_detection, task_json
from training.evaluation.metrics import Answer
from training.model_card import CARD
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import InvalidRequest, Overloaded
from vlm.grounding_json import to_json
from vlm.loading import load
from vlm.types import Box, Chunk, Detection, Grounding, Point, Request, Task

REGION = Box(0.123456789, 0.2, 0.7, 0.9)
TASKS = {
    "florence-2-base": (
        Task("caption"), Task("detect", labels=("circle", "red square")), Task("region_caption", region=REGION),
        Task("segment", region=REGION), Task("ocr_regions"), Task("caption", length="long"),
    ),
    "kosmos-2": (
        Task("caption"), Task("detect", labels=("a circle",)), Task("region_caption", region=REGION),
        Task("query", text="Question: how many shapes are there? Answer:"),
    ),
}  # fmt: skip
PROMPTS = {"florence-2-base": ("", "<OD>"), "kosmos-2": ("", "<grounding>An image of", "a ")}


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    config = EngineConfig(max_batch=8, max_waiting=64, cache_bytes=2**26)
    with ExitStack() as stack:
        yield {name: stack.enter_context(Engine(load(MINIATURES / name, dtype="float32"), config)) for name in TASKS}


@pytest.fixture(scope="module")
def url(engines: dict[str, Engine]) -> Iterator[str]:
    with listening(create_app(LocalBackend(engines), RouterConfig())) as address:
        yield address


def round_off(number: float) -> float:
    return round(number, 5)


def rounded(found: Detection) -> Detection:
    """Round to fewer digits than JSON has, and drop scores, which depend on the other requests of the batch."""

    def corners(points: Sequence[Point]) -> tuple[Point, ...]:
        return tuple(Point(round_off(one.x), round_off(one.y)) for one in points)

    box = found.box
    return replace(
        found,
        score=None,
        confidence=None,
        box=box and Box(round_off(box.x_min), round_off(box.y_min), round_off(box.x_max), round_off(box.y_max)),
        point=found.point and corners([found.point])[0],
        quad=found.quad and corners(found.quad),
        polygons=None if found.polygons is None else tuple(map(corners, found.polygons)),
    )


def all_rounded(answer: Answer) -> Answer:
    return replace(answer, detections=tuple(map(rounded, answer.detections)))


async def answers_of(client: Client, requests: Sequence[Request]) -> list[Answer]:
    return [all_rounded(one) for one in await asyncio.gather(*map(client.answer, requests))]


async def answers_over_http(url: str, name: str, requests: Sequence[Request]) -> list[Answer]:
    async with connect(url) as server:
        return await answers_of(server.client(name), requests)


# Answers


@pytest.mark.parametrize("name", TASKS)
def test_answers_over_http_are_those_of_the_engine(name: str, url: str, engines: dict[str, Engine]) -> None:
    images = [png(draw(scene(HELD_OUT + number))) for number in range(2)]
    requests = [Request(image, task=task) for image in images for task in TASKS[name]]
    requests += [Request(image, prompt) for image in images for prompt in PROMPTS[name]]
    over_http = asyncio.run(answers_over_http(url, name, requests))
    assert over_http == asyncio.run(answers_of(EngineClient(engines[name]), requests))
    assert any(answer.text for answer in over_http)
    assert any(answer.detections for answer in over_http)


@pytest.mark.parametrize("name", TASKS)
def test_scores_over_http_are_those_of_the_engine(name: str, url: str, engines: dict[str, Engine]) -> None:
    one = scene(HELD_OUT)
    items = list(load_evaluation(name).items(one, png(draw(one)), random.Random(0)))
    requests = [item.request for item in items]
    over_http = asyncio.run(answers_over_http(url, name, requests))
    here = asyncio.run(answers_of(EngineClient(engines[name]), requests))
    assert [item.score(answer) for item, answer in zip(items, over_http, strict=True)] == [
        item.score(answer) for item, answer in zip(items, here, strict=True)
    ]


shares = st.floats(0, 1)
points = st.builds(Point, shares, shares)
boxes = st.builds(lambda one, other: Box.spanning((one, other)), points, points)
polygons = st.lists(points, min_size=3, max_size=5).map(tuple)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
detections = st.builds(
    Detection,
    st.sampled_from(["box", "point", "quad", "polygon"]),
    label=st.none() | texts,
    text=st.none() | texts,
    box=st.none() | boxes,
    point=st.none() | points,
    quad=st.none() | st.lists(points, min_size=4, max_size=4).map(tuple),
    polygons=st.none() | st.lists(polygons, max_size=2).map(tuple),
    spans=st.lists(st.tuples(st.integers(0, 9), st.integers(9, 20)), max_size=2).map(tuple),
)


@given(detections)
def test_a_detection_survives_the_way_through_json(found: Detection) -> None:
    (sent,) = to_json(Grounding("detect", "", None, (640, 480), (found,)))["objects"]
    back = read_detection(sent)
    assert (back.kind, back.label, back.text, back.spans) == (found.kind, found.label, found.text, found.spans)
    assert numbers(back) == pytest.approx(numbers(found), abs=1e-6)
    assert [one is None for one in shapes(back)] == [one is None for one in shapes(found)]


def shapes(found: Detection) -> tuple[object, ...]:
    return found.box, found.point, found.quad, found.polygons


def numbers(found: Detection) -> list[float]:
    points = [*(found.quad or ()), *(point for polygon in found.polygons or () for point in polygon)]
    points += [found.point] if found.point else []
    box = found.box
    corners = [box.x_min, box.y_min, box.x_max, box.y_max] if box else []
    return [*corners, *(value for point in points for value in (point.x, point.y))]


@given(
    st.builds(
        Task,
        st.sampled_from(["caption", "detect", "query"]),
        labels=st.lists(st.text("abc ", min_size=1, max_size=5), max_size=3).map(tuple),
        text=st.none() | texts,
        region=st.none() | boxes,
        length=st.sampled_from(["short", "normal", "long"]),
        max_objects=st.none() | st.integers(1, 9),
        reasoning=st.booleans(),
        references=st.lists(points | boxes, max_size=2).map(tuple),
        threshold=st.none() | shares,
    )
)
def test_the_router_reads_the_same_task(task: Task) -> None:
    assert read_task(validated(TaskBody, task_json(task)), "task", lambda: (1, 1)) == task


def test_an_image_without_a_prompt_is_sent_without_text() -> None:
    backend = FakeBackend()
    with listening(create_app(backend, RouterConfig())) as address:
        requests = [Request(png(draw(scene(0)))), Request(png(draw(scene(1))), " a ")]
        answers = asyncio.run(answers_over_http(address, "blip-large", requests))
    assert [answer.text for answer in answers] == [words().text] * 2
    assert sorted(request.prompt for _, request in backend.asked) == ["", " a "]
    assert {request.image for _, request in backend.asked} == {request.image for request in requests}
    assert {request.task for _, request in backend.asked} == {None}


class FullAtFirst(FakeBackend):
    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        first = not self.asked
        async for chunk in super().generate(model, request):
            if first:
                raise Overloaded("Full.")
            yield chunk


def test_requests_to_a_full_server_are_retried() -> None:
    backend = FullAtFirst()
    with listening(create_app(backend, RouterConfig())) as address:
        (answer,) = asyncio.run(answers_over_http(address, "blip-large", [Request(png(draw(scene(0))))]))
    assert answer.text == words().text
    assert len(backend.asked) == 2


def test_the_number_of_requests_in_flight_is_limited() -> None:
    backend = Counting(pause_s=0.01)
    with listening(create_app(backend, RouterConfig())) as address:
        asyncio.run(answers_over_http(address, "blip-large", [Request(png(draw(scene(0))))] * 24))
    assert len(backend.asked) == 24
    assert 1 < backend.most <= 16


class Counting(FakeBackend):
    most = 0

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().generate(model, request):
            self.most = max(self.most, self.running)
            yield chunk


# The command


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments, "--images", "1"])
    return code, *capsys.readouterr()


def test_all_served_models_are_evaluated(capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path) -> None:
    for name in TASKS:
        (tmp_path / name).mkdir()
    code, out, err = run_command(capsys, "--url", f"{url}/v1/", "--card", "--folder", str(tmp_path))
    assert code == 0, err
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == [f"{name}  (over HTTP from {url}/v1/, 1 images)" for name in TASKS]
    for name in TASKS:
        card = (tmp_path / name / CARD).read_text()
        assert "over HTTP: 1 images" in card
        assert "exact" in card


def answering(response: Response) -> AbstractContextManager[str]:
    """A server that gives the same response to every request."""

    async def answer(_: object) -> Response:
        return response

    return listening(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])]))


def error_of(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> str:
    """The last line on stderr of a command that fails with nothing on stdout; libraries may print before it."""
    code, out, err = run_command(capsys, "--url", url, *arguments)
    message = err.splitlines()[-1]
    assert (code, out, message[:7]) == (2, "", "error: "), err
    return message


def test_no_server_is_running(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    message = error_of(capsys, f"http://127.0.0.1:{port}")
    assert f"No server answers at http://127.0.0.1:{port}: start one with `make serve`" in message


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "nonsense", "ftp://127.0.0.1"])
def test_an_invalid_url(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert "`make serve`" in error_of(capsys, url)


@pytest.mark.parametrize("answer", [PlainTextResponse("hello"), JSONResponse([]), JSONResponse({"data": None})])
def test_another_kind_of_server(capsys: pytest.CaptureFixture[str], answer: Response) -> None:
    with answering(answer) as url:
        assert "is not a gigarouter" in error_of(capsys, url)


def test_another_openai_compatible_server(capsys: pytest.CaptureFixture[str]) -> None:
    message = {"role": "assistant", "content": "hello"}
    both = {"data": [{"id": "blip-large"}], "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    with answering(JSONResponse(both)) as url:
        assert "is not a gigarouter" in error_of(capsys, url)
    with answering(PlainTextResponse("not here", 404)) as url:
        assert "answers with status 404" in error_of(capsys, url)


def test_a_model_that_is_not_served(capsys: pytest.CaptureFixture[str], url: str) -> None:
    message = error_of(capsys, url, "kosmos-2", "blip-large")
    assert "serves florence-2-base, kosmos-2, and not blip-large: name another, or add it" in message
    with listening(create_app(LocalBackend({}), RouterConfig())) as empty:
        assert "serves nothing, and not any miniature" in error_of(capsys, empty)


def test_a_card_needs_the_checkpoints_folder(capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path) -> None:
    assert "no folder kosmos-2 for the card" in error_of(capsys, url, "kosmos-2", "--card", "--folder", str(tmp_path))


def test_the_message_of_the_server_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(create_app(FakeBackend([InvalidRequest("Never so.")]), RouterConfig())) as url:
        assert error_of(capsys, url, "blip-large") == f"error: {url} answers with status 400: Never so."


def test_openai_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert "pip install" in error_of(capsys, "http://127.0.0.1:1")


class FakeOpenAI:
    """Counts the requests that are in progress at once; lists no models."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.options: dict[str, object] = {}
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    async def create(self, **_fields: object) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        grounding = {"grounding": {"text": "a", "objects": []}}
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(model_extra=grounding))])

    def with_options(self, **options: object) -> FakeOpenAI:
        self.options = options
        return self

    async def get(self, _path: str, *, cast_to: object) -> object:
        return {"data": []}


def test_a_server_gets_few_requests_at_once_and_its_models_are_asked_for_without_patience() -> None:
    fake: Any = FakeOpenAI()

    async def work() -> None:
        server = Server(fake, "http://server")
        client = server.client("blip-large")
        await asyncio.gather(*(client.answer(Request(b"")) for _ in range(50)))
        await server.models()

    asyncio.run(work())
    assert fake.most == 16
    assert fake.options == {"max_retries": 0}
