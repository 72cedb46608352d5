"""``GET /v1/status``: models, replicas, what waits, and errors, without anything that clients wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from router.admission.capacity import Capacity
from router.admission.rule import Admission, Asked
from router.asgi.metering import RequestRecord
from router.backends.base import ModelStatus, ReplicaStatus
from router.config import RouterConfig
from router.status.recent_errors import MAX_MODELS, RecentErrors
from router.status.report import StatusReport
from tests.router.openapi.documents import strict_validator
from tests.router.world import CHAT, FakeBackend, Json, body, client, image_part, script, user, words
from vlm.errors import EngineFailure, InvalidRequest, ModelNotReady, Overloaded, VlmError

pytestmark = pytest.mark.anyio

UP = ModelStatus("blip-large", ready=True, detail="running", replicas=(ReplicaStatus("ab12", "running"),))
DOWN = ModelStatus("florence-2-base", ready=False, detail="deploying", replicas=(ReplicaStatus("cd34", "starting"),))


BAD_IMAGE = body(messages=[user(image_part("data:image/png;base64,c2VjcmV0"))])


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


def record(model: str | None, error: VlmError | None) -> RequestRecord:
    return RequestRecord("id", "completed" if error is None else "failed", model, (), None, 0, error, None, None, 1.0)


def errors_of(*models: str) -> tuple[RecentErrors, Clock]:
    """For a world in which these models are served."""
    clock = Clock()
    return RecentErrors(lambda model: model in models, clock), clock


async def status_of(backend: FakeBackend, config: RouterConfig | None = None, *asked: object) -> Json:
    """The status after these requests have been sent."""
    async with client(backend, config) as http:
        for one in asked:
            await http.post(CHAT, content=one if isinstance(one, bytes) else json.dumps(one).encode())
        answer = await http.get("/v1/status")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    status: Json = answer.json()
    strict_validator("Status").validate(status)
    return status


async def test_models_and_their_replicas() -> None:
    config = RouterConfig(places_per_replica=32, required_models=("florence-2-base", "kosmos-2"))
    status = await status_of(FakeBackend(statuses=[UP, DOWN]), config)
    assert not status["ready"]
    up, down, absent = status["models"]
    assert up == {
        "id": "blip-large",
        "ready": True,
        "required": False,
        "detail": "running",
        "replicas": [{"id": "ab12", "state": "running"}],
        "places": {"held": 0, "worked_on": 32, "limit": 64},
        "queue_s": 0.0,
        "errors": [],
    }
    assert (down["required"], down["replicas"]) == (True, [{"id": "cd34", "state": "starting"}])
    assert (absent["id"], absent["detail"], absent["replicas"]) == ("kosmos-2", "not deployed", [])


@pytest.mark.parametrize(
    ("statuses", "required", "ready"),
    [
        ([UP], (), True),
        ([UP, DOWN], (), True),
        ([UP, DOWN], ("florence-2-base",), False),
        ([DOWN], (), False),
    ],
)
async def test_it_is_ready_when_readyz_says_so(
    statuses: Sequence[ModelStatus], required: tuple[str, ...], ready: bool
) -> None:
    config = RouterConfig(required_models=required)
    assert (await status_of(FakeBackend(statuses=statuses), config))["ready"] is ready
    async with client(FakeBackend(statuses=statuses), config) as http:
        assert ((await http.get("/readyz")).status_code == 200) is ready


async def test_errors_are_counted_by_model_and_code() -> None:
    failing = FakeBackend((EngineFailure("secret detail"),), statuses=[UP])
    status = await status_of(failing, None, body("secret words"), body("more"), BAD_IMAGE)
    [model] = status["models"]
    latest, first = model["errors"]
    assert (latest["code"], latest["status"], latest["count"]) == ("invalid_image_format", 400, 1)
    assert (first["code"], first["status"], first["count"]) == ("engine_failure", 500, 2)
    assert status["started_at"] <= first["last_at"] <= latest["last_at"] <= status["now"]
    assert "secret" not in json.dumps(status)


async def test_requests_that_cannot_be_read_count_for_no_model() -> None:
    status = await status_of(FakeBackend(statuses=[UP]), None, b"no JSON", b"[]")
    assert [(one["code"], one["count"]) for one in status["errors"]] == [("invalid_json", 2)]
    assert not status["models"][0]["errors"]


async def test_ten_thousand_names_that_are_not_served_are_no_models() -> None:
    errors, _clock = errors_of("blip-large")
    for number in range(10_000):
        errors({}, record(f"name-{number}", InvalidRequest("no")))
    errors({}, record("blip-large", Overloaded("full")))
    assert [one.count for one in errors.of(None)] == [10_000]
    assert [one.code for one in errors.of("blip-large")] == ["overloaded"]


def test_no_name_is_kept_where_nothing_is_known_of_the_cluster() -> None:
    errors, _clock = errors_of()
    errors({}, record("name", ModelNotReady("the cluster is silent")))
    assert [one.code for one in errors.of(None)] == ["model_not_ready"]
    assert not errors.of("name")


def test_names_are_bounded_and_those_of_models_that_are_gone_are_forgotten() -> None:
    names = [f"name-{number}" for number in range(MAX_MODELS + 10)]
    errors, _clock = errors_of(*names)
    for name in names:
        errors({}, record(name, ModelNotReady("asleep")))
    assert sum(one.count for one in errors.of(None)) >= 10
    errors.forget_others(["name-1"])
    assert errors.of("name-1")
    assert not errors.of("name-2")


def test_the_latest_error_comes_first() -> None:
    errors, clock = errors_of("m")
    for error in (Overloaded("a"), EngineFailure("b"), Overloaded("a")):
        clock.now += 1
        errors({}, record("m", error))
    errors({}, record("m", None))
    assert [(one.code, one.count) for one in errors.of("m")] == [("overloaded", 2), ("engine_failure", 1)]


async def test_what_is_held_is_shown_while_it_is_held() -> None:
    backend = FakeBackend(script(words()), statuses=[UP])
    admission = Admission(lambda _model: Capacity(replicas=1, slots=4, rows=4), 10.0, clock=Clock())
    report = StatusReport(backend, admission, RecentErrors(backend.serves), ())
    with admission.admitted(Asked("blip-large", "a", 10.0, generations=3)):
        [model] = report.body([UP])["models"]
        assert model["places"] == {"held": 3, "worked_on": 4, "limit": 8}
        assert model["queue_s"] == 0.0
        with admission.admitted(Asked("blip-large", "b", 10.0, generations=2)):
            [model] = report.body([UP])["models"]
            assert (model["places"]["held"], model["queue_s"]) == (5, None)
    assert report.body([UP])["models"][0]["places"]["held"] == 0
