"""Backends: engines in this process, and Serve applications on a substitute for ``ray.serve``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from router.admission.capacity import Capacity
from router.asgi.errors import row_of
from router.backends.applications import EARLIER, application_of, applications_in, status_of, version_of
from router.backends.base import Backend, LocalBackend, ModelStatus, ReplicaStatus, not_ready
from router.backends.model_info import ModelInfos
from router.backends.ray import MAX_GRPC_BYTES, RayBackend, translated
from router.backends.snapshot import Snapshot
from router.resilience.resilient import ResilientBackend
from tests.clock import CLOCKED
from tests.router.world import script, words
from vlm.errors import (
    DeploymentFailed,
    EngineFailure,
    EngineLost,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    ReplicaLost,
    VlmError,
)
from vlm.types import Chunk, ModelInfo, Request

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


ALWAYS_OLD = -1.0
"""Maximum age of a snapshot that is read again for every call: the test's clock stands still between two."""


def seconds() -> float:
    """The time of the test's own clock."""
    return asyncio.get_running_loop().time()


REQUEST = Request(b"image", "<OD>")
INFO = ModelInfo("blip", "miniatures/blip-large", None, 1_000_000, "float32", "cpu", 64, 192)


async def collected(backend: Backend, model: str = "blip-large", request: Request = REQUEST) -> list[Chunk]:
    return [chunk async for chunk in backend.generate(model, request)]


def test_the_router_starts_without_torch_and_without_ray() -> None:
    modules = "router.app, router.backends.ray, router.chat.format, vlm.models.cards; vlm.models.cards.cards()"
    check = "assert not {'torch', 'ray', 'transformers', 'numpy'} & set(sys.modules), 'too much'"
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; {check}"], check=True)


# In this process


class Engine:
    """Plays chunks, as an engine does."""

    def __init__(self, *chunks: Chunk) -> None:
        self.chunks = chunks
        self.info: ModelInfo | None = None
        self.asked: list[Request] = []
        self.generators: list[AsyncIterator[Chunk]] = []

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        self.generators.append(self._play(request))  # held, so that only an explicit close can close it
        return self.generators[-1]

    async def _play(self, request: Request) -> AsyncIterator[Chunk]:
        self.asked.append(request)
        for chunk in self.chunks:
            await asyncio.sleep(0)
            yield chunk


async def test_local_passes_requests_and_chunks_on() -> None:
    engine = Engine(*script(words()))
    backend = LocalBackend({"blip-large": engine})
    assert await collected(backend) == list(script(words()))
    assert engine.asked == [REQUEST]
    one = (ReplicaStatus("", "running"),)
    assert await backend.models() == [ModelStatus("blip-large", ready=True, detail="in this process", replicas=one)]


async def test_local_lists_what_an_engine_has_loaded() -> None:
    engine = Engine()
    engine.info = INFO
    [status] = await LocalBackend({"blip-large": engine}).models()
    assert status.info == INFO


async def test_local_knows_only_its_engines() -> None:
    with pytest.raises(ModelNotFound, match="'nobody' is not served here"):
        await collected(LocalBackend({}), "nobody")


async def test_local_closes_the_engine_when_it_is_closed() -> None:
    engine = Engine(*script(words()))
    chunks = LocalBackend({"blip-large": engine}).generate("blip-large", REQUEST)
    await anext(chunks)
    await chunks.aclose()
    assert await anext(engine.generators[0], None) is None


async def test_local_takes_an_iterator_that_cannot_be_closed() -> None:
    class Plain:
        def generate(self, request: Request) -> AsyncIterator[Chunk]:
            return Counted()

    class Counted:
        def __init__(self) -> None:
            self.left = 2

        def __aiter__(self) -> Counted:
            return self

        async def __anext__(self) -> Chunk:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return Chunk("x")

    assert len(await collected(LocalBackend({"blip-large": Plain()}))) == 2


# On Serve


@dataclass
class Answer:
    """What ``handle.generate.remote`` gives back."""

    steps: tuple[Chunk | Exception, ...]
    cancelled: int = 0

    def __await__(self) -> Generator[Any, None, Chunk]:
        return self._last().__await__()

    async def _last(self) -> Chunk:
        return [chunk async for chunk in self._play()][-1]

    async def _play(self) -> AsyncGenerator[Chunk, None]:
        for step in self.steps:
            await asyncio.sleep(0)
            if isinstance(step, Exception):
                raise step
            yield step

    def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        return self._play()

    def cancel(self) -> None:
        self.cancelled += 1


@dataclass
class Handle:
    """A deployment handle that counts what is asked of it."""

    steps: tuple[Chunk | Exception, ...]
    info: ModelInfo | Exception = INFO
    answers: list[Answer] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    ways: list[str] = field(default_factory=list)
    described: int = 0

    def options(self, *, method_name: str, stream: bool, _by_reference: bool, **_serialization: str) -> Any:
        if method_name == "describe":
            return SimpleNamespace(remote=self._describe)
        assert stream == (method_name == "generate")
        way = "actor" if _by_reference else "gRPC"
        return SimpleNamespace(remote=lambda request: self._remote(request, f"{method_name} by {way}"))

    async def _describe(self) -> ModelInfo:
        self.described += 1
        await asyncio.sleep(0)
        if isinstance(self.info, Exception):
            raise self.info
        return self.info

    def _remote(self, request: Request, way: str) -> Answer:
        self.asked.append(request)
        self.ways.append(way)
        self.answers.append(Answer(self.steps))
        return self.answers[-1]


def application(status: str = "RUNNING", deployed_s: float = 1.0, **replicas: int) -> Any:
    """What Serve's controller reports of an application with one deployment."""
    return {"status": status, "last_deployed_time_s": deployed_s, "deployments": {"Replica": deployment(**replicas)}}


def deployment(**replicas: int) -> Any:
    return {"replicas": [{"state": state} for state, count in replicas.items() for _ in range(count)]}


class Serve:
    """The part of ``ray.serve`` that the router uses, and its controller; ``info`` is what its replicas report."""

    def __init__(self, *steps: Chunk | Exception, **applications: Any) -> None:
        self.applications: dict[str, Any] = {"router": application(RUNNING=1), **applications}
        self.handles: list[Handle] = []
        self.asked_for: list[str] = []
        self.steps = steps
        self.info: ModelInfo | Exception = INFO
        self.reports = 0

    def report(self) -> Mapping[str, Any]:
        self.reports += 1
        return dict(self.applications)

    def get_deployment_handle(self, deployment: str, name: str) -> Handle:
        if name not in self.applications:
            raise KeyError(f"{deployment} does not exist.")
        self.asked_for.append(deployment)
        self.handles.append(Handle(self.steps, self.info))
        return self.handles[-1]


@pytest.fixture(autouse=True)
def _needs_ray(request: pytest.FixtureRequest) -> None:
    if request.node.name.startswith("test_ray"):
        pytest.importorskip("ray.serve")


def on_ray(serve: Serve, max_age_s: float = 60.0) -> RayBackend:
    return RayBackend(serve, serve.report, max_age_s=max_age_s, quiet_age_s=max_age_s)


async def test_ray_passes_requests_and_chunks_on() -> None:
    serve = Serve(*script(words()), blip=application())
    assert await collected(on_ray(serve), "blip") == list(script(words()))
    (handle,) = serve.handles
    assert handle.asked == [REQUEST]
    assert handle.answers[0].cancelled == 0


async def test_ray_keeps_its_handles() -> None:
    serve = Serve(*script(words()), blip=application(), florence=application())
    backend = on_ray(serve)
    for model in ("blip", "florence", "blip", "blip"):
        await collected(backend, model)
    assert len(serve.handles) == 2
    assert serve.reports == 1


async def test_ray_counts_the_replicas_that_run() -> None:
    serve = Serve(blip=application(RUNNING=3, STARTING=1), florence=application("UPDATING", RUNNING=1, STOPPING=2))
    backend = ResilientBackend(on_ray(serve))
    assert backend.capacity("blip").replicas == 0  # nobody has asked the controller
    await backend.models()
    assert [backend.capacity(name).replicas for name in ("blip", "florence", "nothing")] == [3, 1, 0]


async def test_ray_serves_a_model_that_has_no_replica() -> None:
    backend = ResilientBackend(on_ray(Serve(blip=at(0), kosmos=application("DEPLOY_FAILED", STARTING=1))))
    assert not backend.serves("blip")  # nobody has asked the controller
    await backend.models()
    assert [backend.serves(name) for name in ("blip", "kosmos", "nothing")] == [True, True, False]
    assert backend.capacity("blip").replicas == 0


async def test_ray_counts_the_routers_that_run_and_what_replicas_work_on() -> None:
    serve = Serve(blip=application(RUNNING=3), router=application(RUNNING=2, STARTING=1))
    backend = ResilientBackend(on_ray(serve))
    assert backend.capacity("blip") == Capacity()
    [blip] = await backend.models()
    assert backend.capacity("blip") == Capacity(3, 2, 64, 192)
    assert backend.capacity("nothing") == Capacity(0, 2)
    assert blip.info == INFO


async def test_ray_counts_one_router_where_none_is_reported() -> None:
    backend = on_ray(Serve(blip=application(), router=application("DEPLOYING", STARTING=1)))
    await backend.models()
    assert backend.capacity("blip").routers == 1


async def test_ray_chooses_how_a_request_crosses_by_the_size_of_its_images() -> None:
    serve = Serve(*script(words()), blip=application())
    backend = on_ray(serve)
    whole, half = bytes(MAX_GRPC_BYTES), bytes(MAX_GRPC_BYTES // 2)
    for request in (
        Request(None, "no image"),
        Request(whole),
        Request(whole + b"1"),
        Request(None, images=(half, half), stream=False),
        Request(None, images=(half, half, b"1"), stream=False),
    ):
        assert [chunk async for chunk in backend.generate("blip", request)]
    [handle] = serve.handles
    grpc, actor = "generate by gRPC", "generate by actor"
    assert handle.ways == [grpc, grpc, actor, "answer by gRPC", "answer by actor"]


async def test_ray_a_whole_answer_crosses_once() -> None:
    serve = Serve(*script(words()), blip=application())
    request = replace(REQUEST, stream=False)
    assert [chunk async for chunk in on_ray(serve).generate("blip", request)] == [script(words())[-1]]
    assert serve.handles[0].answers[0].cancelled == 0


async def test_ray_a_stream_that_has_ended_is_not_cancelled() -> None:
    """Its reader stops at the last chunk, before the generator has come to its end."""
    serve = Serve(*script(words()), blip=application())
    chunks = on_ray(serve).generate("blip", REQUEST)
    async for chunk in chunks:
        if chunk.completion is not None:
            break
    await chunks.aclose()
    assert serve.handles[0].answers[0].cancelled == 0


async def test_ray_an_error_of_the_transport_is_not_an_exception_of_ours() -> None:
    refused: Exception = type(
        "Refused", (pytest.importorskip("grpc").RpcError,), {}
    )()  # as if a message were too large
    with pytest.raises(EngineFailure):
        await collected(on_ray(Serve(refused, blip=application())), "blip")


async def test_ray_forgets_the_handle_of_an_application_that_vanished() -> None:
    serve = Serve(*script(words()), blip=application())
    backend = on_ray(serve, max_age_s=ALWAYS_OLD)
    await collected(backend, "blip")
    gone = serve.applications.pop("blip")
    with pytest.raises(ModelNotFound):
        await collected(backend, "blip")
    serve.applications["blip"] = gone
    await collected(backend, "blip")
    assert len(serve.handles) == 2


async def test_ray_does_not_offer_the_router_itself() -> None:
    backend = on_ray(Serve(zeta=application(), alpha=application("DEPLOY_FAILED")))
    assert await backend.models() == [
        ModelStatus("alpha", ready=False, detail="deploy failed"),
        ModelStatus("zeta", ready=True, detail="at zero (a request starts it)"),
    ]
    with pytest.raises(ModelNotFound):
        await collected(backend, "router")


async def test_ray_refuses_a_model_that_is_not_there_yet() -> None:
    with pytest.raises(ModelNotReady, match="'blip' cannot answer yet: deploying"):
        await collected(on_ray(Serve(blip=application("DEPLOYING"))), "blip")


async def test_ray_application_deleted_since_the_last_look() -> None:
    serve = Serve(blip=application())
    backend = on_ray(serve)
    await backend.models()
    del serve.applications["blip"]
    with pytest.raises(ModelNotFound):
        await collected(backend, "blip")


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_ray_call_is_cancelled_when_the_answer_is_given_up(taken: int) -> None:
    serve = Serve(*script(words()), blip=application())
    chunks = on_ray(serve).generate("blip", REQUEST)
    for _ in range(taken):
        await anext(chunks)
    await chunks.aclose()
    assert [answer.cancelled for handle in serve.handles for answer in handle.answers] == [1] * min(taken, 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_ray_call_is_cancelled_with_the_task_that_waits_for_it(stream: bool) -> None:
    class Stuck(Answer):
        async def _play(self) -> AsyncGenerator[Chunk, None]:
            await asyncio.sleep(60)
            yield Chunk()

    stuck = Stuck(())
    handle = SimpleNamespace(remote=lambda request: stuck)
    serve = SimpleNamespace(get_deployment_handle=lambda *_: SimpleNamespace(options=lambda **_: handle))
    backend = RayBackend(serve, Serve(blip=application()).report)
    waiting = asyncio.create_task(collected(backend, "blip", replace(REQUEST, stream=stream)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert stuck.cancelled == 1


def task_error(cause: Exception) -> Exception:
    """The exception that Ray raises for a failed call: of the cause's class, too."""
    from ray.exceptions import RayTaskError

    error = RayTaskError("generate", "Traceback: secret of the engine", cause, proctitle="p", pid=1, ip="127.0.0.1")
    both: Exception = error.as_instanceof_cause()
    return both


async def failure(error: Exception, *before: Chunk) -> VlmError:
    with pytest.raises(VlmError) as caught:
        await collected(on_ray(Serve(*before, error, blip=application())), "blip")
    assert "secret" not in str(caught.value)
    assert "Traceback" not in caught.value.message
    return caught.value


async def test_ray_task_errors_give_up_our_own_error() -> None:
    cause = InvalidRequest("No.", "prompt", "invalid_value")
    error = await failure(task_error(cause))
    assert type(error) is InvalidRequest
    assert (error.message, error.param, error.code) == ("No.", "prompt", "invalid_value")


async def test_ray_task_errors_hide_everybody_elses() -> None:
    for before in ((), (Chunk("a"),)):
        error = await failure(task_error(RuntimeError("secret")), *before)
        assert type(error) is EngineFailure
        assert error.message == "The model 'blip' failed while it worked on this request."


async def test_ray_lost_processes_are_told_by_whether_the_client_has_a_part_of_the_answer() -> None:
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    for lost in (ActorDiedError(), ActorUnavailableError("secret", None), ended_connection("UNAVAILABLE")):
        assert type(await failure(lost)) is ReplicaLost
        error = await failure(lost, Chunk("a"))
        assert type(error) is EngineLost
        assert error.message == "The model 'blip' failed while it worked on this request."


async def test_ray_a_replica_that_stops_cancels_what_it_has() -> None:
    """Serve translates what gRPC says only where it says that the process has gone."""
    assert type(await failure(ended_connection("CANCELLED"), Chunk("a"))) is EngineLost
    assert type(await failure(ended_connection("RESOURCE_EXHAUSTED"))) is EngineFailure


def ended_connection(code: str) -> Exception:
    grpc = pytest.importorskip("grpc")
    error: Exception = grpc.aio.AioRpcError(grpc.StatusCode[code], grpc.aio.Metadata(), grpc.aio.Metadata())
    return error


async def test_ray_a_model_that_failed_to_deploy_has_lost_nothing() -> None:
    from ray.serve._private.common import DeploymentID
    from ray.serve.exceptions import DeploymentUnavailableError

    assert type(await failure(DeploymentUnavailableError(DeploymentID("Replica", "blip")))) is ModelNotReady


async def test_ray_back_pressure_is_overload() -> None:
    from ray.serve.exceptions import BackPressureError

    assert type(await failure(BackPressureError(3, 2))) is Overloaded


async def test_ray_has_no_memory_for_an_image_is_overload() -> None:
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError

    for full in (OutOfDiskError("secret"), ObjectStoreFullError("secret")):
        error = await failure(full)
        assert type(error) is Overloaded
        assert "no memory" in error.message
        assert "secret" not in error.message


async def test_ray_errors_in_general() -> None:
    from ray.exceptions import RayError, TaskCancelledError
    from ray.serve.exceptions import RayServeException

    for error in (RayError("secret"), RayServeException("secret"), TaskCancelledError()):
        assert type(await failure(error)) is EngineFailure


async def test_ray_raises_the_error_that_a_replica_sends_as_its_last_chunk() -> None:
    for before in ((), (Chunk("a"),)):
        error = InvalidRequest("No.", "prompt", "invalid_value")
        serve = Serve(*before, Chunk(error=error), blip=application())
        chunks = on_ray(serve).generate("blip", REQUEST)
        assert [await anext(chunks) for _ in before] == list(before)
        with pytest.raises(InvalidRequest) as caught:
            await anext(chunks)
        assert caught.value is error
        assert serve.handles[0].answers[0].cancelled == 0


async def test_ray_leaves_our_own_errors_as_they_are() -> None:
    error = Overloaded("Full.")
    with pytest.raises(Overloaded) as caught:
        await collected(on_ray(Serve(error, blip=application())), "blip")
    assert caught.value is error


def test_translated_needs_no_ray_at_all() -> None:
    assert type(translated(Exception("secret"), "blip", started=False)) is EngineFailure


@pytest.mark.parametrize(
    ("application_", "ready"),
    [
        (application("RUNNING", RUNNING=1), True),
        (application("RUNNING"), True),  # scaled to zero: the request wakes it
        (application("DEPLOYING", STARTING=1), False),
        (application("DEPLOYING", STARTING=1, RUNNING=1), True),  # a rolling update
        (application("DEPLOYING", RECOVERING=1), True),  # the controller was lost, and the replica was not
        (application("UNHEALTHY", PENDING_MIGRATION=1), True),  # its node is about to end
        (application("UNHEALTHY", RUNNING=1), True),  # one of several replicas is lost
        (application("UNHEALTHY", STOPPING=1), False),
        (application("DEPLOY_FAILED", RUNNING=1), True),  # a bad update whose old replicas still answer
        (application("DEPLOY_FAILED", STARTING=1), False),
        (application("DELETING", RUNNING=1), False),
        (application("NOT_STARTED"), False),
    ],
)
def test_when_an_application_is_ready(application_: Any, ready: bool) -> None:
    assert status_of("blip", application_).ready is ready


def at(target: int, **replicas: int) -> Any:
    """An application that runs and is to have so many replicas."""
    reported = application("RUNNING", **replicas)
    reported["deployments"]["Replica"]["target_num_replicas"] = target
    return reported


async def test_a_model_without_a_replica_is_asleep_until_one_runs() -> None:
    serve = Serve(blip=at(0), kosmos=application("DEPLOYING", STARTING=1))
    backend = on_ray(serve, max_age_s=ALWAYS_OLD)
    for reported, detail, asleep in (
        (at(0), "at zero (a request starts it)", True),
        (at(1, STARTING=1), "starting (requests wait for its first replica)", True),
        (at(1, RUNNING=1), "running", False),
        (at(0, STOPPING=1), "at zero (a request starts it)", True),
    ):
        serve.applications["blip"] = reported
        [blip, _] = await backend.models()
        assert (blip.ready, blip.detail, await backend.asleep("blip")) == (True, detail, asleep)
    assert not await backend.asleep("kosmos")  # not deployed yet: no request starts it
    assert not await backend.asleep("nobody")


@pytest.mark.parametrize("state", ["DEPLOYING", "DEPLOY_FAILED", "UNHEALTHY"])
def test_an_application_is_ready_only_if_each_of_its_deployments_has_a_replica(state: str) -> None:
    up, down = ({"RUNNING": 1}, {"STARTING": 1})
    for states, ready in (
        ((up, up), True),
        ((up, down), False),
        ((down, up), False),
        ((down, down), False),
        ((), False),
    ):
        deployments = {f"part {index}": deployment(**one) for index, one in enumerate(states)}
        reported = {"status": state, "deployments": deployments}
        assert status_of("blip", reported).ready is ready, states


def test_status_of_what_ray_itself_reports() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    common = pytest.importorskip("ray.serve._private.common")
    replicas = [{"replica_id": name, "state": common.ReplicaState.RUNNING} for name in ("ab12", "cd34")]
    reported = {"status": schema.ApplicationStatus.DEPLOYING, "deployments": {"Replica": {"replicas": replicas}}}
    detail = "running (a new version is being deployed)"
    running = (ReplicaStatus("ab12", "running"), ReplicaStatus("cd34", "running"))
    assert status_of("blip", reported) == ModelStatus("blip", ready=True, detail=detail, replicas=running)


TRACEBACK = "Deploying app 'blip' failed with exception:\nTraceback:\n  File\nvlm.errors.ConfigError: engine.max_bacth"


def earlier(status: str, **replicas: int) -> Any:
    """What the controller's report becomes while it names no deployments, but keeps those of the last version."""
    return {**application(status, **replicas), "message": TRACEBACK, EARLIER: True}


@pytest.mark.parametrize(
    ("application_", "detail", "failed", "reason"),
    [
        (earlier("DEPLOYING", RUNNING=1), "running (a new version is being deployed)", False, ""),
        (earlier("DEPLOYING"), "deploying", False, ""),
        (earlier("DEPLOY_FAILED", RUNNING=1), "running (its last deployment failed)", False, "max_bacth"),
        (earlier("DEPLOY_FAILED"), "deploy failed", False, "max_bacth"),  # Serve replaces the old replica
        (application("DEPLOY_FAILED", STOPPING=1), "deploy failed", True, "Serve gives no reason."),
        ({"status": "DEPLOY_FAILED", "message": TRACEBACK, "deployments": {}}, "deploy failed", True, "max_bacth"),
        ({**application("DEPLOYING"), "deployments": {"Replica": {"replicas": [], "target_num_replicas": 0}}},
         "running (a new version is being deployed)", False, ""),  # scaled to zero
    ],
)  # fmt: skip
def test_what_is_said_of_a_model_whose_deployment_has_not_ended_well(
    application_: Any, detail: str, failed: bool, reason: str
) -> None:
    found = application_of("blip", application_)
    assert (found.status.detail, found.status.ready, found.failed) == (detail, detail.startswith("running"), failed)
    assert reason in found.reason
    assert "\n" not in found.reason
    assert bool(found.reason) is bool(reason)


async def test_ray_answers_while_a_new_version_is_built_and_after_that_has_failed() -> None:
    """Serve gives out no handle of the application then, but that of its deployment."""
    for status in ("DEPLOYING", "DEPLOY_FAILED"):
        serve = Serve(*script(words()), blip=earlier(status, RUNNING=1))
        assert await collected(on_ray(serve), "blip") == list(script(words()))


async def test_ray_promises_nothing_where_the_only_deployment_failed() -> None:
    serve = Serve(blip={**application("DEPLOY_FAILED"), "message": TRACEBACK})
    with pytest.raises(DeploymentFailed, match=r"its last deployment failed.*`serve status`") as caught:
        await collected(on_ray(serve), "blip")
    assert "max_bacth" not in str(caught.value)  # it may hold paths
    assert row_of(caught.value).headers == {"x-should-retry": "false"}


async def test_ray_logs_why_a_deployment_failed_once(caplog: pytest.LogCaptureFixture) -> None:
    serve = Serve(blip=earlier("DEPLOY_FAILED", RUNNING=1))
    backend = on_ray(serve, max_age_s=ALWAYS_OLD)
    for _ in range(3):
        await backend.models()
    assert [record.message for record in caplog.records] == [
        "the last deployment of 'blip' failed: vlm.errors.ConfigError: engine.max_bacth"
    ]


def test_a_model_that_is_being_deleted_is_not_served() -> None:
    serve = Serve(blip=application("DELETING", RUNNING=1), kosmos=application())
    assert set(applications_in(serve.report(), "router")) == {"kosmos"}


def test_the_router_itself_is_no_model() -> None:
    assert set(applications_in(Serve(blip=application()).report(), "router")) == {"blip"}


# What is loaded


@pytest.mark.parametrize(
    ("application_", "version"),
    [
        (application("RUNNING", 7.0, RUNNING=1), 7.0),
        (application("RUNNING", 7.0), None),  # scaled to zero: a question would start it
        (application("DEPLOYING", 7.0, RUNNING=1), None),  # that replica may be of the last version
        (application("UNHEALTHY", 7.0, RUNNING=1), None),
    ],
)
def test_when_a_model_is_asked_what_it_has_loaded(application_: Any, version: float | None) -> None:
    assert version_of(application_) == version


async def infos(backend: Backend) -> dict[str, ModelInfo | None]:
    return {status.name: status.info for status in await backend.models()}


async def test_ray_asks_each_model_once_what_it_has_loaded() -> None:
    serve = Serve(blip=application(RUNNING=1), florence=application("DEPLOYING", STARTING=1), zero=application())
    backend = on_ray(serve, max_age_s=ALWAYS_OLD)
    for _ in range(3):
        assert await infos(backend) == {"blip": INFO, "florence": None, "zero": None}
    assert [handle.described for handle in serve.handles] == [1]


async def test_ray_asks_again_when_a_model_has_been_deployed_anew() -> None:
    serve = Serve(blip=application(RUNNING=1))
    backend = on_ray(serve, max_age_s=ALWAYS_OLD)
    await infos(backend)
    newer = replace(INFO, dtype="bfloat16")
    serve.handles[0].info = newer
    serve.applications["blip"] = application("DEPLOYING", 2.0, RUNNING=1)
    assert await infos(backend) == {"blip": INFO}  # the last version still answers
    serve.applications["blip"] = application("RUNNING", 2.0, RUNNING=1)
    assert await infos(backend) == {"blip": newer}


async def test_ray_forgets_what_a_deleted_model_had_loaded() -> None:
    serve = Serve(blip=application(RUNNING=1))
    backend = on_ray(serve, max_age_s=ALWAYS_OLD)
    await infos(backend)
    del serve.applications["blip"]
    assert await infos(backend) == {}
    serve.applications["blip"] = application("DEPLOYING", STARTING=1)
    assert await infos(backend) == {"blip": None}


async def test_ray_lists_a_model_that_cannot_be_described() -> None:
    from ray.serve.exceptions import RayServeException

    serve = Serve(blip=application(RUNNING=1))
    serve.info = RayServeException("secret")
    backend = on_ray(serve, max_age_s=ALWAYS_OLD)
    for _ in range(2):
        assert await infos(backend) == {"blip": None}
    assert [handle.described for handle in serve.handles] == [1]


async def test_a_model_that_does_not_describe_itself_is_not_waited_for_long() -> None:
    answers = asyncio.Event()

    async def describe(_model: str) -> ModelInfo:
        await answers.wait()
        return INFO

    known, began = ModelInfos(describe, patience_s=0.5), seconds()
    assert await known.latest({"blip": 1.0}) == {}
    assert seconds() == began + 0.5
    assert await known.latest({"blip": 1.0}) == {}  # the patience is spent: the same question is open
    assert seconds() == began + 0.5
    answers.set()
    await asyncio.sleep(0.01)
    assert await known.latest({"blip": 1.0}) == {"blip": INFO}


async def test_a_model_that_did_not_answer_is_asked_again_later() -> None:
    asked = []

    async def describe(model: str) -> ModelInfo:
        asked.append(model)
        if len(asked) == 1:
            await asyncio.sleep(60)
        return INFO

    known, began = ModelInfos(describe, patience_s=5, limit_s=2, retry_s=50), seconds()
    assert await known.latest({"blip": 1.0}) == {}
    assert seconds() == began + 2
    await asyncio.sleep(47)
    assert await known.latest({"blip": 1.0}) == {}
    assert asked == ["blip"]
    await asyncio.sleep(2)
    assert await known.latest({"blip": 1.0}) == {"blip": INFO}


# The snapshot

UP: Mapping[str, ModelStatus] = {"blip": ModelStatus("blip", ready=True, detail="running")}


async def test_a_snapshot_is_read_once_however_many_ask() -> None:
    reads = []

    def read() -> Mapping[str, ModelStatus]:
        reads.append(threading.current_thread())
        return UP

    snapshot = Snapshot(read, max_age_s=60)
    assert await asyncio.gather(*(snapshot.latest() for _ in range(10))) == [UP] * 10
    assert len(reads) == 1
    assert reads[0] is not threading.main_thread()


async def test_a_snapshot_is_read_again_when_it_is_old() -> None:
    states = iter([UP, {}])
    snapshot = Snapshot(lambda: next(states), max_age_s=10)
    assert await snapshot.latest() == UP
    await asyncio.sleep(9)
    assert await snapshot.latest() == UP
    await asyncio.sleep(2)
    assert await snapshot.latest() == {}


async def test_the_last_snapshot_serves_while_the_controller_is_away(caplog: pytest.LogCaptureFixture) -> None:
    states: list[Mapping[str, ModelStatus]] = [UP]
    snapshot = Snapshot(states.pop, max_age_s=1)
    assert await snapshot.latest() == UP
    await asyncio.sleep(2)
    assert await snapshot.latest() == UP
    assert "IndexError" in caplog.text


async def test_a_read_that_failed_is_not_repeated_before_it_is_due() -> None:
    """Otherwise each request asks a controller that is in trouble, and waits for it."""
    reads: list[float] = []

    def read() -> Mapping[str, ModelStatus]:
        reads.append(len(reads))
        if len(reads) > 1:
            raise OSError
        return UP

    snapshot = Snapshot(read, max_age_s=1)
    await snapshot.latest()
    await asyncio.sleep(2)
    for _ in range(10):
        assert await snapshot.latest() == UP
    assert len(reads) == 2
    await asyncio.sleep(2)
    assert await snapshot.latest() == UP
    await asyncio.sleep(0.1)  # while it is away, nobody waits for the thread
    assert len(reads) == 3


async def test_a_controller_that_hangs_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = iter([0.0, 60.0, 0.0])

    async def in_thread(read: Callable[[], Any]) -> Any:
        await asyncio.sleep(next(pauses))  # as long as the thread would take
        return read()

    monkeypatch.setattr(asyncio, "to_thread", in_thread)
    states = iter([UP, {}, UP])
    snapshot = Snapshot(lambda: next(states), max_age_s=1, patience_s=2)
    await snapshot.latest()
    await asyncio.sleep(10)
    began = seconds()
    assert await snapshot.latest() == UP
    assert seconds() == began + 2
    assert await snapshot.latest() == UP  # the patience is spent: the same reader still hangs
    assert seconds() == began + 2
    await asyncio.sleep(59)
    assert await snapshot.latest() == {}  # it has answered in the end
    await asyncio.sleep(2)
    assert await snapshot.latest() == UP


async def test_nobody_waits_for_a_controller_that_is_known_to_be_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reading of a lost one takes long; the state is kept for as long as it takes, and the log has two lines."""

    async def in_thread(read: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.0 if seconds() < lost or seconds() > lost + 600 else 10.0)
        return read()

    def read() -> Mapping[str, ModelStatus]:
        if lost <= seconds() <= lost + 600:
            raise TimeoutError
        return UP

    lost = seconds() + 100
    monkeypatch.setattr(asyncio, "to_thread", in_thread)
    snapshot = Snapshot(read, max_age_s=1, patience_s=2)
    await snapshot.latest()
    await asyncio.sleep(101)
    waited = []
    for _ in range(100):
        began = seconds()
        assert await snapshot.latest() == UP
        waited.append(seconds() - began)
        await asyncio.sleep(5)
    assert waited == [2.0] + [0.0] * 99
    assert snapshot.age_s > 500
    await asyncio.sleep(200)
    await snapshot.latest()  # the one that asks again does not wait for the answer
    await asyncio.sleep(0.1)
    assert snapshot.age_s < 1
    assert [record.message.partition(":")[0].partition(";")[0] for record in caplog.records] == [
        "the cluster's applications cannot be read (no answer)",
        "the cluster's applications can be read again",
    ]


async def test_without_any_snapshot_nothing_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    def away() -> Mapping[str, ModelStatus]:
        raise OSError("secret")

    with pytest.raises(ModelNotReady):
        await Snapshot(away, max_age_s=0).latest()
    assert "secret" not in caplog.text


def test_not_ready_names_those_that_wait_and_those_that_are_missing() -> None:
    up, down = ModelStatus("up", ready=True, detail=""), ModelStatus("down", ready=False, detail="deploying")
    assert not_ready([up], []) == []
    assert not_ready([up, down], ["up"]) == not_ready([up, down], []) == []
    assert not_ready([up, down], ["down"]) == not_ready([down], []) == [down]
    assert not_ready([up], ["up", "lost"]) == [ModelStatus("lost", ready=False, detail="not deployed")]
