"""Traces of requests from the router to the replicas: which spans there are, how they hang together, what they say."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from logs.trace_id import TRACE_ID
from router.app import create_app, resilient
from router.config import RouterConfig
from router.tracing import names
from router.tracing.choice import Choice
from router.tracing.tracing import Tracing, check_installed, tracing_of
from tests.clock import CLOCKED
from tests.router.composition.world import Models, asking
from tests.router.resilience.world import GONE, LOST, MODEL, Scripted
from tests.router.tracing.world import TARGET, Replicas, ask, traced_app
from tests.router.world import Step, body, image_part, script, text_part, user, words
from tests.traces.kept import Kept
from traces.context import context_in
from traces.current import CURRENT
from vlm.errors import ConfigError, InvalidImage, Overloaded
from vlm.types import Request

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{SPAN}-01"
SERVER = "POST /v1/chat/completions"
SECRETS = ("xyzzy-prompt", "xyzzy-key", "xyzzy-model", "xyzzy-answer", "xyzzy.example")


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


@pytest.fixture
def kept() -> Kept:
    return Kept()


async def test_a_request_is_one_trace_from_the_router_to_the_engine(kept: Kept) -> None:
    answer = await ask(traced_app(Replicas(script(words()), kept=kept), kept))
    assert answer.status_code == 200
    assert kept.tree() == {
        SERVER: None,
        "admission": SERVER,
        "read images": SERVER,
        "call replica": SERVER,
        "answer": "call replica",
        "prepare": "answer",
        "queue": "answer",
        "prefill": "answer",
        "decode": "answer",
    }
    assert len({span.context.trace_id for span in kept.spans}) == 1
    assert all(span.began_ns <= span.ended_ns for span in kept.spans)


async def test_the_span_of_a_request_says_what_it_was(kept: Kept) -> None:
    await ask(traced_app(Replicas(script(words()), kept=kept), kept), **{"x-request-id": "req_1"})
    span = kept.one(SERVER)
    first_chunk = span.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert isinstance(first_chunk, float)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.provider.name": "gigarouter",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.stream": False,
        "gen_ai.usage.input_tokens": 580,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gigarouter.request_id": "req_1",
        "gigarouter.outcome": "completed",
        "gigarouter.images": 1,
    }
    assert (span.kind, span.failed, kept.one("call replica").kind) == ("server", False, "client")
    assert kept.one("answer").attributes["gigarouter.request_id"] == "req_1"


async def test_the_stages_of_an_engine_are_its_own_times(kept: Kept) -> None:
    timings = replace(words().timings, prepare_ms=10, queue_ms=20, first_token_ms=60, total_ms=100, encode_ms=30)
    backend = Replicas(script(replace(words(), timings=timings)), kept=kept)
    await ask(traced_app(backend, kept))
    stages = [kept.one(name) for name in ("prepare", "queue", "prefill", "encode", "decode")]
    assert [one.began_ns >= kept.one("answer").began_ns for one in stages] == [True] * 5
    lasted = {one.name: round((one.ended_ns - one.began_ns) / 1e6) for one in stages}
    assert {name: lasted[name] for name in ("prepare", "queue", "prefill", "encode")} == {
        "prepare": 10, "queue": 20, "prefill": 40, "encode": 30,
    }  # fmt: skip
    assert kept.tree()["encode"] == "prefill"
    assert stages[0].ended_ns == stages[1].began_ns
    assert stages[1].ended_ns == stages[2].began_ns == stages[3].began_ns


async def test_a_callers_trace_goes_on_here(kept: Kept) -> None:
    await ask(traced_app(Replicas(script(words()), kept=kept), kept), traceparent=CALLER)
    span = kept.one(SERVER)
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (TRACE, SPAN)
    assert {one.context.trace_id for one in kept.spans} == {TRACE}


async def test_what_is_not_sampled_has_an_id_and_no_span(kept: Kept) -> None:
    backend = Replicas(script(words()), kept=kept)
    await ask(traced_app(backend, kept, choice=Choice(0.0, False)), traceparent=CALLER)
    assert kept.spans == []
    (request,) = backend.asked
    assert request.trace is not None
    context = context_in([request.trace.parent])
    assert context is not None
    assert (context.trace_id, context.sampled, request.trace.target) == (TRACE, False, "")
    assert backend.targets == []


async def test_a_replica_is_told_where_its_spans_go(kept: Kept) -> None:
    backend = Replicas(script(words()), kept=kept)
    await ask(traced_app(backend, kept))
    assert backend.targets == [TARGET]


async def test_each_attempt_has_a_span_that_follows_the_one_before(kept: Kept) -> None:
    answer = await ask(traced_app(Replicas([GONE], [Overloaded("Full.")], script(words()), kept=kept), kept))
    assert answer.status_code == 200
    calls = kept.all_of("call replica")
    assert [call.attributes[names.ATTEMPT] for call in calls] == [1, 2, 3]
    assert [call.attributes.get(names.ERROR) for call in calls] == ["model_not_ready", "overloaded", None]
    assert [call.failed for call in calls] == [True, True, False]
    assert [call.link for call in calls] == [None, calls[0].context, calls[1].context]
    assert {call.parent for call in calls} == {kept.one(SERVER).context}
    events = kept.one(SERVER).events
    assert [(one.name, one.attributes) for one in events] == [
        ("retry", {"reason": "lost", "attempt": 2}),
        ("retry", {"reason": "full", "attempt": 3}),
    ]
    assert len(kept.all_of("answer")) == 3
    assert kept.one(SERVER).failed is False


async def test_each_of_several_models_has_attempts_of_its_own(kept: Kept) -> None:
    tracing = Tracing(kept, TARGET, Choice(1.0, False))
    config = RouterConfig()
    app = create_app(resilient(Models(), config, tracing), config, tracing=tracing)
    answer = await ask(app, asking("compare", models=["blip-large", "kosmos-2"], task="caption"))
    assert answer.status_code == 200
    calls = kept.all_of("call replica")
    assert sorted(str(call.attributes[names.MODEL]) for call in calls) == ["blip-large", "kosmos-2"]
    assert [(call.attributes[names.ATTEMPT], call.link) for call in calls] == [(1, None), (1, None)]
    assert kept.one("admission").ended_ns <= min(call.began_ns for call in calls)


async def test_a_stream_that_goes_on_elsewhere_is_seen(kept: Kept) -> None:
    chunks = script(words())
    backend = Replicas([*chunks[:2], LOST], chunks, kept=kept)
    answer = await ask(traced_app(backend, kept), body(stream=True))
    assert "red square" in answer.text
    assert [(one.name, one.attributes) for one in kept.one(SERVER).events] == [
        ("retry", {"reason": "lost", "attempt": 2}),
        ("stream resumed", {"attempt": 2}),
    ]
    assert [[event.name for event in call.events] for call in kept.all_of("call replica")] == [["first chunk"]] * 2
    assert kept.one(SERVER).attributes[names.OUTCOME] == "completed"


async def test_a_fault_of_the_server_is_one_and_a_mistake_of_the_client_is_not(kept: Kept) -> None:
    failing: list[list[Step]] = [[LOST], [InvalidImage("No image.")]]
    for steps, status, code in zip(failing, (500, 400), ("engine_failure", "invalid_image"), strict=True):
        kept.spans.clear()
        answer = await ask(traced_app(Replicas(steps, kept=kept), kept, RouterConfig(retry_share=0.0, retry_floor=0)))
        span = kept.one(SERVER)
        assert answer.status_code == span.attributes[names.STATUS] == status
        assert (span.attributes[names.ERROR], span.failed) == (code, status == 500)
        assert span.attributes[names.OUTCOME] == "failed"


async def test_the_stage_in_which_a_request_was_refused_says_so(kept: Kept) -> None:
    bad = {"model": MODEL, "messages": [user(image_part("data:image/png;base64,AAAA"))]}
    await ask(traced_app(Replicas(script(words()), kept=kept), kept), bad)
    assert kept.names == ["admission", "read images", SERVER]
    assert names.ERROR in kept.one("read images").attributes
    assert names.ERROR not in kept.one("admission").attributes


async def test_only_requests_to_models_are_traced(kept: Kept) -> None:
    app = traced_app(Replicas(script(words()), kept=kept), kept)
    for path in ("/healthz", "/v1/models", "/v1/files", "/nothing"):
        await ask(app, {}, path=path)
    assert kept.spans == []


async def test_nothing_of_a_request_or_its_answer_is_in_a_span(kept: Kept) -> None:
    url = "https://xyzzy.example/cat.png?token=xyzzy-key"
    requests = [
        body("xyzzy-prompt", user="xyzzy-prompt"),
        {"model": "xyzzy-model", "messages": [user(image_part(), text_part("xyzzy-prompt"))]},
        {"model": MODEL, "messages": [user(image_part(url), text_part("xyzzy-prompt"))]},
        {"model": MODEL, "messages": "xyzzy-prompt"},
        body("xyzzy-prompt", stream=True),
    ]
    app = traced_app(Replicas(script(words("a xyzzy-answer")), kept=kept), kept, RouterConfig(image_urls="off"))
    for request in requests:
        await ask(app, request, authorization="Bearer xyzzy-key", tracestate="xyzzy-key=1", baggage="k=xyzzy-key")
    assert len(kept.all_of(SERVER)) == len(requests)
    written = json.dumps(
        [[one.name, one.attributes, [[e.name, e.attributes] for e in one.events]] for one in kept.spans]
    )
    assert [secret for secret in SECRETS if secret in written] == []
    assert "data:image" not in written


async def test_lines_of_the_log_have_the_id_of_the_trace(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    class Looking(Replicas):
        def serves(self, model: str) -> bool:
            seen.append(TRACE_ID.get())
            return super().serves(model)

    with caplog.at_level(logging.INFO, logger="router.asgi.middleware"):
        await ask(traced_app(Looking(script(words()), kept=kept), kept), traceparent=CALLER)
    assert seen
    assert set(seen) == {TRACE}
    assert caplog.messages[-1].endswith(f" trace {TRACE}")


async def test_spans_are_sent_when_the_router_ends(kept: Kept) -> None:
    app = traced_app(Replicas(script(words()), kept=kept), kept)
    async with app.router.lifespan_context(app):
        assert not kept.stopped
    assert kept.stopped


# Off


def test_traces_are_off_by_default() -> None:
    assert tracing_of(RouterConfig(), dict) is None


async def test_without_traces_a_request_carries_none() -> None:
    CURRENT.set(None)
    backend = Scripted(script(words()))
    answer = await ask(create_app(backend, RouterConfig()), traceparent=CALLER)
    assert answer.status_code == 200
    assert [request.trace for request in backend.asked] == [None]
    assert Request(None).trace is None


OFF = """
import asyncio, sys
from deployments.replica_traces import ReplicaTraces
from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.router.resilience.world import Scripted
from tests.router.tracing.world import ask
from tests.router.world import script, words
config = RouterConfig()
answer = asyncio.run(ask(create_app(Scripted(script(words())), config), traceparent=sys.argv[1]))
assert answer.status_code == 200, answer.text
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_without_traces_nothing_of_opentelemetry_is_imported() -> None:
    command = [sys.executable, "-c", OFF, CALLER]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_router_without_the_packages_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.tracing.tracing.is_installed", lambda target: False)
    with pytest.raises(ConfigError, match=r"pip install 'gigarouter\[traces\]'"):
        check_installed(RouterConfig(traces=TARGET))
