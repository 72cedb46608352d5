"""The endpoint with a second, made-up format: whatever route comes next has all of this without writing it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import Scope

from router.asgi.body import read_object
from router.asgi.endpoint import Endpoint
from router.asgi.errors import INTERNAL, on_http_error, on_vlm_error
from router.asgi.format import Demand, ImageReference, Requester
from router.asgi.metering import RequestRecord
from router.asgi.middleware import RequestMiddleware
from router.asgi.sse import event
from router.config import RouterConfig
from tests.clock import CLOCKED
from tests.router.world import FakeBackend, Step, chosen_script, events, of_choices, script, several, talk, words
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, Overloaded, VlmError
from vlm.types import Chunk, Completion, Request, Task, Usage

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
PATH = "/v1/toy"
GONE = {"type": "http.disconnect"}


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


# The toy format: {"ask": text, "see": [name, ...], "live": bool} -> {"say": text}


@dataclass(frozen=True)
class ParsedToy:
    raw: Json

    @property
    def images(self) -> Sequence[ImageReference]:
        return [ImageReference(name, f"see[{index}]") for index, name in enumerate(self.raw.get("see", []))]


@dataclass(frozen=True)
class BuiltToy:
    request: Request
    stream: bool
    request_id: str
    model: str = "blip-large"

    def response_json(self, completion: Completion) -> Json:
        return {"say": completion.text, "to": self.request_id}

    def event_writer(self) -> ToyWriter:
        return ToyWriter()

    def located(self, error: VlmError) -> VlmError:
        return type(error)(error.message, "ask" if error.param == "prompt" else error.param, error.code)


class ToyWriter:
    def opening(self) -> bytes:
        return event({"begins": True})

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        yield event({"say": chunk.text})
        if chunk.completion is not None:
            yield event({"ends": True})

    def failure(self, error: VlmError) -> bytes:
        return event({"failed": error.message, "param": error.param})


class ToyFormat:
    def parse(self, body: bytes) -> ParsedToy:
        raw = read_object(body)
        if "ask" not in raw:
            raise InvalidRequest("ask is required.", "ask")
        return ParsedToy(raw)

    def demand(self, parsed: ParsedToy) -> Demand:
        return Demand("toy")

    def build(self, parsed: ParsedToy, images: Sequence[bytes], request_id: str) -> BuiltToy:
        live = bool(parsed.raw.get("live"))
        request = Request(b"+".join(images) or None, parsed.raw["ask"], Task("caption"), stream=live)
        return BuiltToy(request, live, request_id)


# The world around it


class Shelf:
    """Images by name, which take their time as something fetched does."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.interrupted = False

    async def load(self, references: Sequence[ImageReference], requester: Requester) -> Sequence[bytes]:
        try:
            await asyncio.sleep(self.pause_s)
        except asyncio.CancelledError:
            self.interrupted = True
            raise
        return [self._image(reference) for reference in references]

    def _image(self, reference: ImageReference) -> bytes:
        if reference.url == "lost":
            raise InvalidImage("There is no such image.", reference.param, "image_file_not_found")
        return reference.url.encode()


@dataclass
class Toy:
    """A router with the toy's route alone, and what its meter was told."""

    backend: FakeBackend = field(default_factory=FakeBackend)
    shelf: Shelf = field(default_factory=Shelf)
    config: RouterConfig = field(default_factory=RouterConfig)
    records: list[RequestRecord] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        endpoint = Endpoint(ToyFormat(), self.backend, self.shelf, self.config, self._meter)
        return Starlette(
            routes=[Route(PATH, endpoint, methods=["POST"])],
            middleware=[Middleware(RequestMiddleware)],
            exception_handlers={VlmError: on_vlm_error, HTTPException: on_http_error},
        )

    def _meter(self, scope: Scope, record: RequestRecord) -> None:
        assert scope["path"] == PATH
        self.records.append(record)

    async def post(self, **fields: object) -> Any:
        import httpx

        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://router") as http:
            return await http.post(PATH, json={"ask": "what?", **fields})

    def the_record(self) -> RequestRecord:
        """The one record; also that nothing is left running behind it."""
        [record] = self.records
        assert self.backend.running == 0
        return record


def sent(body: bytes = b'{"ask": "what?", "live": true}', *, more: bool = False) -> Json:
    return {"type": "http.request", "body": body, "more_body": more}


# Answers


async def test_a_whole_answer() -> None:
    toy = Toy()
    answer = await toy.post(see=["cat", "dog"])
    assert answer.json() == {"say": "a red square", "to": answer.headers["x-request-id"]}
    assert answer.headers["x-gigarouter-model"] == "blip-large"
    [(model, request)] = toy.backend.asked
    expected = Request(b"cat+dog", "what?", Task("caption"), stream=False)
    assert (model, replace(request, caller=None)) == ("blip-large", expected)
    record = toy.the_record()
    assert (record.outcome, record.model, record.tasks, record.error) == ("completed", "blip-large", ("caption",), None)
    assert (record.usage, record.generated_tokens) == (Usage(577, 3, 3), 3)
    assert record.request_id == answer.headers["x-request-id"]
    assert record.read_s is not None
    assert record.first_chunk_s is not None
    assert 0 <= record.read_s <= record.first_chunk_s <= record.total_s


async def test_a_streamed_answer() -> None:
    toy = Toy()
    answer = await toy.post(live=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events(answer.text) == [
        {"begins": True}, {"say": "a"}, {"say": " red square"}, {"say": ""}, {"ends": True},
    ]  # fmt: skip
    record = toy.the_record()
    assert (record.outcome, record.usage, record.generated_tokens) == ("completed", Usage(577, 3, 3), 3)


async def test_the_tokens_of_all_choices_are_recorded() -> None:
    toy = Toy(FakeBackend(chosen_script(of_choices(words(), words()))))
    await toy.post(live=True)
    record = toy.the_record()
    assert (record.usage, record.generated_tokens) == (Usage(577, 3, 6), 6)


async def test_the_tasks_that_were_answered_are_recorded() -> None:
    toy = Toy(FakeBackend(script(several())))
    await toy.post()
    assert toy.the_record().tasks == ("detect", "caption", "caption")


async def test_a_waiting_stream_is_kept_alive() -> None:
    toy = Toy(FakeBackend(pause_s=5), config=RouterConfig(keep_alive_s=3))
    text = (await toy.post(live=True)).text
    assert [event for event in text.split("\n\n") if event.startswith(":")] == [": keep-alive"] * 2


# Errors


async def test_a_body_that_cannot_be_read() -> None:
    toy = Toy()
    await talk(toy.app, PATH, [sent(b"{")])
    record = toy.the_record()
    assert (record.outcome, record.model, record.tasks, record.read_s) == ("failed", None, (), None)
    assert record.error is not None
    assert record.error.code == "invalid_json"
    assert toy.backend.asked == []


async def test_an_image_that_cannot_be_loaded() -> None:
    toy = Toy()
    answer = await toy.post(see=["cat", "lost"])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "see[1]"
    record = toy.the_record()
    assert (record.outcome, type(record.error)) == ("failed", InvalidImage)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "param"),
    [(InvalidRequest("No.", "prompt"), 400, "ask"), (Overloaded("Full."), 503, None)],
)
async def test_an_early_error_has_its_status_and_is_located_by_the_format(
    live: bool, error: VlmError, status: int, param: str | None
) -> None:
    toy = Toy(FakeBackend([error]))
    answer = await toy.post(live=live)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    record = toy.the_record()
    assert (record.outcome, record.model, record.generated_tokens) == ("failed", "blip-large", 0)
    assert record.error is not None
    assert record.error.param == param
    assert record.first_chunk_s is None


async def test_a_late_error_is_an_event_of_the_format() -> None:
    toy = Toy(FakeBackend([Chunk("a", (11,)), EngineFailure("Broken.")]))
    answer = await toy.post(live=True)
    assert answer.status_code == 200
    assert events(answer.text)[-1] == {"failed": "Broken.", "param": None}
    record = toy.the_record()
    assert (record.outcome, record.usage, record.generated_tokens) == ("failed", None, 1)
    assert isinstance(record.error, EngineFailure)


async def test_a_fault_of_the_server_within_a_stream_is_an_event_of_the_format_too() -> None:
    answer = await Toy(FakeBackend([Chunk("a", (11,)), RuntimeError("a bug")])).post(live=True)
    assert events(answer.text)[-1] == {"failed": INTERNAL.message, "param": None}


async def test_an_error_after_the_stream_has_begun_is_located_too() -> None:
    toy = Toy(FakeBackend([InvalidRequest("Too long.", "prompt")], pause_s=0.1), config=RouterConfig(keep_alive_s=0.02))
    answer = await toy.post(live=True)
    assert answer.status_code == 200
    assert events(answer.text)[-1] == {"failed": "Too long.", "param": "ask"}
    error = toy.the_record().error
    assert error is not None
    assert error.param == "ask"


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("steps", [[], [Chunk("a", (11,))]])
async def test_an_answer_without_an_end_has_failed(live: bool, steps: list[Step]) -> None:
    toy = Toy(FakeBackend(steps))
    await toy.post(live=live)
    record = toy.the_record()
    assert (record.outcome, type(record.error)) == ("failed", EngineFailure)


async def test_a_fault_of_the_server_is_recorded_too() -> None:
    toy = Toy(FakeBackend([RuntimeError("a bug")]))
    assert (await toy.post()).status_code == 500
    record = toy.the_record()
    assert record.outcome == "failed"
    assert record.error is not None
    assert record.error.code == "internal_error"


# The deadline


async def test_the_deadline_while_the_body_is_awaited() -> None:
    toy = Toy(config=RouterConfig(request_timeout_s=0.05))
    messages = await talk(toy.app, PATH, [sent(b"{", more=True)])
    assert messages[0]["status"] == 504
    record = toy.the_record()
    assert record.outcome == "failed"
    assert record.model is None


async def test_the_deadline_while_images_are_loaded() -> None:
    toy = Toy(shelf=Shelf(pause_s=30), config=RouterConfig(request_timeout_s=0.05))
    assert (await toy.post()).status_code == 504
    assert toy.the_record().outcome == "failed"
    assert toy.shelf.interrupted


@pytest.mark.parametrize("live", [False, True])
async def test_the_deadline_before_the_first_chunk(live: bool) -> None:
    toy = Toy(FakeBackend(pause_s=30), config=RouterConfig(request_timeout_s=0.05))
    assert (await toy.post(live=live)).status_code == 504
    assert toy.the_record().outcome == "failed"
    assert toy.backend.closed == 1


async def test_the_deadline_within_a_stream() -> None:
    steps: list[Step] = [Chunk("a", (11,)) for _ in range(100)]
    toy = Toy(FakeBackend(steps, pause_s=4), config=RouterConfig(request_timeout_s=10))
    answer = await toy.post(live=True)
    assert answer.status_code == 200
    assert "longer than this server allows" in events(answer.text)[-1]["failed"]
    record = toy.the_record()
    assert record.outcome == "failed"
    assert record.error is not None
    assert record.generated_tokens == 2


# A client that leaves


async def test_a_client_that_leaves_while_it_sends() -> None:
    toy = Toy()
    assert await talk(toy.app, PATH, [sent(b"{", more=True), GONE]) == []
    record = toy.the_record()
    assert (record.outcome, record.model, record.error) == ("abandoned", None, None)


async def test_a_client_that_leaves_while_images_are_loaded() -> None:
    toy = Toy(shelf=Shelf(pause_s=30))
    assert await talk(toy.app, PATH, [sent(), GONE]) == []
    assert toy.shelf.interrupted
    assert (toy.the_record().outcome, toy.backend.asked) == ("abandoned", [])


@pytest.mark.parametrize("body", [b'{"ask": "what?"}', b'{"ask": "what?", "live": true}'])
async def test_a_client_that_leaves_before_the_first_chunk(body: bytes) -> None:
    toy = Toy(FakeBackend(pause_s=30))
    assert await talk(toy.app, PATH, [sent(body), GONE]) == []
    record = toy.the_record()
    assert (record.outcome, record.model, record.tasks) == ("abandoned", "blip-large", ("caption",))
    assert record.generated_tokens == 0
    assert toy.backend.closed == 1


class SlowToStop(FakeBackend):
    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        self.running += 1
        try:
            async for chunk in super().generate(model, request):
                yield chunk
        finally:
            await asyncio.sleep(1)
            self.running -= 1


@pytest.mark.parametrize("body", [b'{"ask": "what?"}', b'{"ask": "what?", "live": true}'])
async def test_a_request_is_recorded_once_its_work_has_stopped(body: bytes) -> None:
    toy = Toy(SlowToStop(pause_s=30))
    assert await talk(toy.app, PATH, [sent(body), GONE]) == []
    assert toy.the_record().outcome == "abandoned"


async def test_a_client_that_leaves_a_stream_is_recorded_with_its_tokens() -> None:
    steps: list[Step] = [Chunk("a", (11, 12)) for _ in range(1000)]
    toy = Toy(FakeBackend(steps, pause_s=0.01))
    await talk(toy.app, PATH, [sent(), GONE])
    record = toy.the_record()
    assert (record.outcome, record.usage, record.error) == ("abandoned", None, None)
    assert record.generated_tokens in (2 * 4, 2 * 5)  # one chunk every 10 ms until it leaves after 50
    assert toy.backend.closed == 1


async def test_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.asgi.endpoint.READING_GRACE_S", 0.05)
    toy, began = Toy(config=RouterConfig(request_timeout_s=0.25)), asyncio.get_running_loop().time()
    await talk(toy.app, PATH, [sent()], reads=False)
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.25 + 0.05)
    assert toy.the_record().outcome == "abandoned"


async def test_a_client_that_leaves_without_reading_a_comment() -> None:
    toy = Toy(FakeBackend(pause_s=0.03), config=RouterConfig(keep_alive_s=0.018))
    # At 18 ms the stream is opened, at 30 it has its first piece, at 48 a comment, and at 50 the client leaves.
    sent_before = await talk(toy.app, PATH, [sent(), GONE], reads=False, until=b": keep-alive")
    assert sent_before[-1]["body"] == b": keep-alive\n\n"
    assert toy.the_record().outcome == "abandoned"


async def test_a_server_that_stops() -> None:
    toy = Toy(FakeBackend(pause_s=30))
    exchange = asyncio.create_task(talk(toy.app, PATH, [sent()]))
    while not toy.backend.running:
        await asyncio.sleep(0.01)
    exchange.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange
    assert toy.the_record().outcome == "abandoned"


async def test_a_completed_answer_stays_completed() -> None:
    toy = Toy(FakeBackend([*script(words()), RuntimeError("never reached")]))
    await toy.post(live=True)
    assert toy.the_record().outcome == "completed"


def tokens(*numbers: int, choices: tuple[int, ...] = ()) -> Chunk:
    return Chunk(token_ids=numbers, choices=tuple(Chunk(token_ids=(1,), index=index) for index in choices))


ANSWERED = Chunk(completion=words())
TWO_ANSWERS = Chunk(completion=replace(words(), choices=(words(), words())))


@pytest.mark.parametrize(
    ("chunks", "seconds"),
    [
        ([tokens(1), tokens(2), tokens(3, 4), ANSWERED], 10 / 3),
        ([tokens(1, 2, 3), ANSWERED], None),
        ([replace(ANSWERED, token_ids=(1, 2, 3))], None),
        (
            [
                tokens(choices=(0, 1)),
                tokens(choices=(0, 1)),
                TWO_ANSWERS,
            ],
            5,
        ),
    ],
    ids=["some in each part", "all in the first", "all at once", "two answers"],
)
async def test_time_of_a_token_is_from_the_first_part_to_the_last(
    chunks: list[Chunk], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.asgi.metering.time", SimpleNamespace(perf_counter=asyncio.get_running_loop().time))
    toy = Toy(FakeBackend(chunks, pause_s=5))
    await toy.post(live=True)
    assert toy.the_record().per_token_s == pytest.approx(seconds)


async def test_when_a_request_was_read_began_to_be_answered_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("router.asgi.metering.time", SimpleNamespace(perf_counter=loop.time))
    toy = Toy(FakeBackend(pause_s=5), Shelf(pause_s=3))
    await toy.post(live=True)
    record = toy.the_record()
    assert (record.read_s, record.first_chunk_s, record.total_s) == (3, 3 + 5, 3 + 3 * 5)
