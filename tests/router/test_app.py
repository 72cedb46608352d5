"""The small routes, and what a Serve config hands to ``build``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from router.app import OneRequestId, Router, build, create_app
from router.backends.base import ModelStatus
from router.config import RouterConfig
from serve_args.cluster_environment import own
from tests.router.world import FakeBackend, check_error, client
from vlm.errors import ConfigError, ModelNotReady

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.anyio

UP = ModelStatus("blip-large", ready=True, detail="running")
DOWN = ModelStatus("florence-2-base", ready=False, detail="deploying")


async def test_healthz_does_not_depend_on_the_models() -> None:
    async with client(FakeBackend(statuses=[DOWN])) as http:
        answer = await http.get("/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert (await http.head("/healthz")).status_code == 200
        assert (await http.get("/health")).json() == answer.json()


async def test_readyz_when_all_can_answer() -> None:
    async with client(FakeBackend(statuses=[UP]), RouterConfig(required_models=("blip-large",))) as http:
        answer = await http.get("/readyz")
        assert answer.status_code == 200
        assert answer.json() == {
            "status": "ready",
            "models": [{"name": "blip-large", "ready": True, "detail": "running"}],
        }


@pytest.mark.parametrize(
    ("statuses", "required", "names"),
    [
        ([DOWN], (), "florence-2-base"),
        ([UP], ("blip-large", "kosmos-2"), "kosmos-2"),
        ([DOWN], ("florence-2-base", "kosmos-2"), "florence-2-base, kosmos-2"),
    ],
)
async def test_readyz_when_some_cannot(statuses: Sequence[ModelStatus], required: tuple[str, ...], names: str) -> None:
    async with client(FakeBackend(statuses=statuses), RouterConfig(required_models=required)) as http:
        answer = await http.get("/readyz")
        error = check_error(answer, 503, "model_not_ready", "model")
        assert error["message"] == f"Not ready yet: {names}."
        assert answer.headers["retry-after"] == "2"
        waiting = [model["name"] for model in answer.json()["models"] if not model["ready"]]
        assert waiting == names.split(", ")
        assert len(answer.json()["models"]) == len({*(status.name for status in statuses), *required})


@pytest.mark.parametrize("required", [(), ("blip-large",)])
async def test_readyz_does_not_wait_for_a_model_that_is_added(required: tuple[str, ...]) -> None:
    async with client(FakeBackend(statuses=[UP, DOWN]), RouterConfig(required_models=required)) as http:
        answer = await http.get("/readyz")
        assert answer.status_code == 200
        assert [model["ready"] for model in answer.json()["models"]] == [True, False]


class Empty(FakeBackend):
    async def models(self) -> Sequence[ModelStatus]:
        return []


class Away(FakeBackend):
    async def models(self) -> Sequence[ModelStatus]:
        raise ModelNotReady("The cluster does not answer yet.")


async def test_readyz_without_any_model() -> None:
    async with client(Empty()) as http:
        error = check_error(await http.get("/readyz"), 503, "model_not_ready", "model")
        assert error["message"] == "No model is deployed yet."
        assert (await http.get("/v1/models")).json() == {"object": "list", "data": []}


@pytest.mark.parametrize("path", ["/readyz", "/v1/models", "/v1/models/blip-large"])
async def test_an_unreachable_cluster_is_503(path: str) -> None:
    async with client(Away()) as http:
        check_error(await http.get(path), 503, "model_not_ready", "model")


async def test_models_are_listed_ready_or_not() -> None:
    async with client(FakeBackend(statuses=[UP, DOWN])) as http:
        listed = (await http.get("/v1/models")).json()
        assert listed["object"] == "list"
        assert [(model["id"], model["status"]["ready"]) for model in listed["data"]] == [
            ("blip-large", True),
            ("florence-2-base", False),
        ]


@pytest.mark.parametrize(
    "asked", ["blip-large", "Salesforce/blip-image-captioning-large", "Salesforce%2Fblip-image-captioning-large"]
)
async def test_a_model_by_any_of_its_names(asked: str) -> None:
    async with client(FakeBackend()) as http:
        answer = await http.get(f"/v1/models/{asked}")
        assert answer.status_code == 200
        assert answer.json()["id"] == "blip-large"


async def test_models_with_their_tasks() -> None:
    async with client(FakeBackend(statuses=[UP])) as http:
        listed = (await http.get("/v1/models?expand=tasks")).json()["data"]
        assert [model["id"] for model in listed] == ["blip-large", "blip-large:caption"]
        assert len((await http.get("/v1/models?expand=nothing")).json()["data"]) == 1
        one = await http.get("/v1/models/Salesforce/blip-image-captioning-large:caption")
        assert (one.status_code, one.json()["id"]) == (200, "blip-large:caption")
        check_error(await http.get("/v1/models/blip-large:ocr"), 404, "model_not_found", "model")


async def test_a_model_that_has_a_card_but_is_not_served() -> None:
    async with client(FakeBackend(statuses=[UP])) as http:
        check_error(await http.get("/v1/models/florence-2-base"), 404, "model_not_found", "model")


def test_build_refuses_unknown_settings() -> None:
    pytest.importorskip("ray.serve")
    with pytest.raises(ConfigError, match="max_body is not a known setting"):
        build({"max_body": 1})


def test_build_is_an_application_with_one_deployment() -> None:
    serve = pytest.importorskip("ray.serve")
    built = build({"request_timeout_s": 7})
    assert isinstance(built, serve.Application)
    assert built._bound_deployment.name == "Router"
    assert built._bound_deployment.init_args == (RouterConfig(request_timeout_s=7), own())


RAYS_CONCURRENCY = 1000
"""How many calls of all kinds Ray lets into an asynchronous actor at a time, if it is told nothing else."""


@pytest.mark.parametrize("name", ["serve_config.yaml", "serve_config.local.yaml"])
def test_health_checks_find_a_place_in_the_router_whatever_else_waits(name: str) -> None:
    """Serve's own among the calls that Ray lets in, and /healthz among those that Serve lets in."""
    pytest.importorskip("ray.serve")
    application = yaml.safe_load((ROOT / name).read_text("utf-8"))["applications"][0]
    [router] = application["deployments"]
    built = build({})._bound_deployment
    numbers = (built.max_ongoing_requests, built._deployment_config.max_queued_requests)
    assert numbers == (router["max_ongoing_requests"], router["max_queued_requests"])
    allowed = RouterConfig.from_args(application["args"]).max_requests
    assert allowed + 100 <= router["max_ongoing_requests"] <= RAYS_CONCURRENCY - 200
    assert router["max_queued_requests"] > 0


def test_a_replica_builds_its_own_application() -> None:
    pytest.importorskip("ray.serve")
    assert isinstance(Router(RouterConfig(), own()).__serve_build_asgi_app__(), OneRequestId)


async def test_behind_serve_the_request_id_is_serves_to_add() -> None:
    import httpx

    app = OneRequestId(create_app(FakeBackend(), RouterConfig()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        answer = await http.get("/healthz")
        assert "x-request-id" not in answer.headers
        assert "openai-processing-ms" in answer.headers
