"""``GET /metrics`` of a router whose backend plays its answers: what is counted, and that labels stay few."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import httpx
import pytest

from metrics.catalogue import CATALOGUE, FIRST_TOKEN, HELD_PLACES, IMAGES, QUEUE_TIME, REQUESTS, TOKENS
from metrics.prometheus import PrometheusMetrics
from router.app import create_app
from router.asgi.metering import RequestRecord
from router.backends.base import Backend
from router.backends.ray import RayBackend
from router.config import RouterConfig
from router.request_metrics import MAX_NAMES, RequestMeter
from router.resilience.resilient import ResilientBackend
from router.resilience.retry_policy import RetryPolicy
from tests.metrics.exposed import Samples, samples
from tests.router.resilience.world import Scripted
from tests.router.world import CHAT, FakeBackend, body, script, words
from vlm.errors import EngineFailure, InvalidRequest, Overloaded, ReplicaLost

pytestmark = pytest.mark.anyio

BLIP = {"model": "blip-large"}
LOADING = {
    "status": "DEPLOYING",
    "last_deployed_time_s": 1.0,
    "deployments": {"Replica": {"replicas": [{"state": "STARTING"}]}},
}
"""As Serve's controller reports an application without a replica that answers."""
COMPLETED = {**BLIP, "outcome": "completed", "error": ""}


@asynccontextmanager
async def measured(backend: Backend) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(backend, RouterConfig(), metrics=PrometheusMetrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        yield http


async def scraped(http: httpx.AsyncClient) -> Samples:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.content)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_counted_with_its_tokens_its_image_and_its_times(stream: bool) -> None:
    async with measured(FakeBackend()) as http:
        await http.post(CHAT, json=body(stream=stream))
        found = await scraped(http)
    assert found.value(REQUESTS.name, **COMPLETED) == 1
    usage = words().usage
    counts = {"text": usage.text_tokens, "image": usage.image_tokens, "generated": usage.completion_tokens}
    for kind, count in counts.items():
        assert found.value(TOKENS.name, **BLIP, kind=kind) == count
    assert found.value(IMAGES.name, **BLIP) == 1
    assert found.value(f"{QUEUE_TIME.name}_sum", **BLIP) == words().timings.queue_ms / 1000
    assert found.value(f"{FIRST_TOKEN.name}_count", **BLIP) == (1 if stream else None)
    assert found.value(HELD_PLACES.name, **BLIP) == 0


@pytest.mark.parametrize(
    ("error", "code"), [(Overloaded("Full."), "overloaded"), (EngineFailure("Broken."), "engine_failure")]
)
async def test_failures_are_counted_by_their_code(error: Exception, code: str) -> None:
    async with measured(FakeBackend([error])) as http:
        await http.post(CHAT, json=body())
        found = await scraped(http)
    assert found.value(REQUESTS.name, **BLIP, outcome="failed", error=code) == 1
    assert found.value(REQUESTS.name, **COMPLETED) is None


async def test_retries_and_streams_that_go_on_are_counted_for_their_model() -> None:
    backend = Scripted([ReplicaLost("It has gone.")], script(words()))
    async with measured(ResilientBackend(backend, RetryPolicy(first_pause_s=0.0))) as http:
        assert (await http.post(CHAT, json=body())).status_code == 200
        found = await scraped(http)
    assert found.value("gigarouter_retries_total", **BLIP, reason="lost") == 1


async def test_what_is_held_is_shown_of_every_model_before_its_first_request_has_ended() -> None:
    async with measured(FakeBackend(pause_s=0.05)) as http:
        assert (await scraped(http)).value(HELD_PLACES.name, **BLIP) == 0
        task = asyncio.create_task(http.post(CHAT, json=body()))
        async with asyncio.timeout(30):
            while not (await scraped(http)).value(HELD_PLACES.name, **BLIP):
                await asyncio.sleep(0.01)
        await task


class Nobody(FakeBackend):
    """Serves no model."""

    def serves(self, model: str) -> bool:
        return False

    def names(self) -> Collection[str]:
        return []


async def test_unknown_names_make_one_series() -> None:
    async with measured(Nobody(statuses=[])) as http:
        for number in range(200):
            await http.post(CHAT, json=body(model=f"model-{number}"))
        found = await scraped(http)
    assert found.labels("model") <= {"other", "blip-large"}
    refused = [value for (name, _), value in found.found.items() if name == REQUESTS.name]
    assert sum(refused) == 200


def test_ten_thousand_unknown_names_make_one_series_and_so_do_errors() -> None:
    metrics = PrometheusMetrics()
    meter = RequestMeter(metrics, lambda _model: False)
    for number in range(10_000):
        error = InvalidRequest("No.", code=f"code-{number}")
        meter({}, RequestRecord("id", "failed", f"model-{number}", (), None, 0, error, None, None, 0.1))
    found = samples(metrics.exposition())
    assert found.labels("model") == {"other"}
    assert len(found.labels("error")) == MAX_NAMES + 1


async def test_what_a_model_without_a_replica_refuses_is_counted_for_it() -> None:
    async with measured(RayBackend(object(), lambda: {"blip-large": LOADING}, max_age_s=0.0)) as http:
        await http.get("/v1/models")
        await http.post(CHAT, json=body())
        found = await scraped(http)
        status = (await http.get("/v1/status")).json()
    assert found.value(REQUESTS.name, **BLIP, outcome="failed", error="model_not_ready") == 1
    assert [one["code"] for one in status["models"][0]["errors"]] == ["model_not_ready"]


async def test_requests_that_cannot_be_read_are_of_no_model() -> None:
    async with measured(Nobody()) as http:
        await http.post(CHAT, content=b"{")
        found = await scraped(http)
    assert found.labels("model") == {"other"}
    assert found.labels("outcome") == {"failed"}


async def test_nothing_is_held_of_streams_that_are_abandoned() -> None:
    """Each client leaves at a random moment of its stream."""
    rng = random.Random(7)
    backend = FakeBackend(pause_s=0.002)
    async with measured(backend) as http:

        async def leave() -> None:
            task = asyncio.create_task(http.post(CHAT, json=body(stream=True)))
            await asyncio.sleep(rng.random() * 0.02)
            task.cancel()

        for _ in range(10):
            await asyncio.gather(*(leave() for _ in range(30)))
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while backend.running or (await scraped(http)).value(HELD_PLACES.name, **BLIP) not in (0, None):
                await asyncio.sleep(0.01)
        found = await scraped(http)
    ended = sum(value for (name, _), value in found.found.items() if name == REQUESTS.name)
    assert ended == 300


async def test_a_router_that_shows_no_metrics_has_no_such_route() -> None:
    app = create_app(FakeBackend(), RouterConfig())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        assert (await http.get("/metrics")).status_code == 404


async def test_no_metric_is_shown_that_the_catalogue_does_not_have() -> None:
    async with measured(FakeBackend()) as http:
        await http.post(CHAT, json=body(stream=True))
        found = await scraped(http)
    known = {one.name for one in CATALOGUE}
    suffixes = ("_bucket", "_sum", "_count", "_created")
    assert {next((name.removesuffix(one) for one in suffixes if name.endswith(one)), name) for name in found.names} <= {
        *known, *(name.removesuffix("_total") for name in known)
    }  # fmt: skip
