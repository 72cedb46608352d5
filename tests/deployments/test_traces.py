"""A trace that crosses processes: a caller's header, the router, both ways to a replica, and a collector."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from PIL import Image

from deployments.config import ModelConfig
from deployments.replica import Replica
from router.app import build
from router.backends.ray import MAX_GRPC_BYTES
from tests.images import data_url, encoded, hand_drawn
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.world import CHAT, image_part, user
from tests.traces.collector import Collector, collecting, texts

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings are not ours to fix

MODEL = "blip-large"
MINIATURE = Path(__file__).parents[2] / "miniatures" / MODEL
IN_THE_ROUTER = {"POST /v1/chat/completions", "admission", "read images", "call replica"}
IN_THE_REPLICA = {"answer", "prepare", "queue", "prefill", "encode", "decode"}


def large_image(seed: int) -> bytes:
    """Noise, of 3 MB."""
    return encoded(Image.frombytes("RGB", (1200, 900), random.Random(seed).randbytes(1200 * 900 * 3)))


@dataclass(frozen=True)
class Running:
    url: str
    collector: Collector


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with collecting() as collector, cluster({"OTEL_BSP_SCHEDULE_DELAY": "100"}) as port:
        from ray import serve

        from deployments.routing import by_image

        config = ModelConfig(checkpoint=str(MINIATURE), device="cpu")
        options: Any = {"ray_actor_options": {"num_cpus": 0}, "request_router_config": by_image(config.engine.capacity)}
        model: Any = serve.deployment(name="Replica", **options)(Replica)
        serve.run(model.bind(config), name=MODEL, route_prefix=None)
        serve.run(build({"traces": collector.url, **WITHOUT_TOKEN}), name="router", route_prefix="/")
        yield Running(f"http://127.0.0.1:{port}", collector)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("large", [False, True], ids=["over gRPC", "as a call of an actor"])
def test_one_trace_from_the_caller_to_the_engine(running: Running, large: bool, stream: bool) -> None:
    number = 1 + 2 * stream + large
    image = large_image(number) if large else hand_drawn(640 + number)  # each is encoded, and not found in a cache
    assert (len(image) > MAX_GRPC_BYTES) is large
    trace = f"{number:032x}"
    request = {"model": MODEL, "messages": [user(image_part(data_url(image)))], "stream": stream}
    header = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    answer = httpx.post(running.url + CHAT, json=request, headers=header, timeout=60)
    assert answer.status_code == 200, answer.text

    def of_this(spans: list[tuple[str, Span]]) -> dict[str, tuple[str, Span]]:
        return {span.name: (service, span) for service, span in spans if span.trace_id.hex() == trace}

    found = of_this(running.collector.wait_until(lambda spans: len(of_this(spans)) >= 10))
    assert {name for name, (service, _) in found.items() if service == "gigarouter-router"} == IN_THE_ROUTER
    assert {name for name, (service, _) in found.items() if service == f"gigarouter-{MODEL}"} == IN_THE_REPLICA
    spans = {name: span for name, (_, span) in found.items()}
    assert spans["answer"].parent_span_id == spans["call replica"].span_id
    assert spans["decode"].parent_span_id == spans["answer"].span_id
    assert spans["encode"].parent_span_id == spans["prefill"].span_id
    server = spans["POST /v1/chat/completions"]
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    assert texts(server.attributes)["gigarouter.request_id"] == answer.headers["x-request-id"]
    assert texts(spans["answer"].attributes)["gigarouter.request_id"] == answer.headers["x-request-id"]
    assert "gigarouter.replica" in texts(spans["call replica"].attributes)
