"""The routes, and the router as a Ray Serve application.

``create_app`` is plain ASGI and runs anywhere; ``build`` is what a Serve config names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from logs.lines import set_up
from metrics.base import Metrics
from metrics.prometheus import CONTENT_TYPE, PrometheusMetrics
from metrics.ray import RayMetrics
from router.accounts.account_routes import AccountRoutes
from router.admission.rule import Admission
from router.asgi import any_text
from router.asgi.caller import caller_of
from router.asgi.endpoint import admission_of, hold_of, sees_of
from router.asgi.errors import error_response, json_response, on_http_error, on_vlm_error
from router.asgi.format import ImageLoader
from router.asgi.front import Front
from router.asgi.gate import Gate
from router.asgi.memory import return_memory
from router.asgi.metering import Meter, both, ignore
from router.asgi.middleware import RequestMiddleware
from router.backends.base import Backend, ModelStatus, not_ready, unknown
from router.backends.counting import counting
from router.backends.ray import RayBackend
from router.catalogue import entry, task_entries
from router.composition.planner import Planner
from router.composition.speed import Speeds
from router.config import RouterConfig
from router.conversation.model_name import read_model_name
from router.endpoints import MODEL_PATHS, OPERATIONS, Shared, model_endpoints
from router.fetch.fetcher import Fetcher
from router.fetch.loader import UrlLoader
from router.files.objects import open_objects
from router.files.routes import FileRoutes
from router.files.store import FileStore
from router.files.sweeper import sweeping
from router.images import DataUrlLoader, check_image
from router.openapi.accounts import ACCOUNTS
from router.openapi.document import openapi_json
from router.openapi.files import FILES
from router.openapi.operation import DescribedRoute
from router.openapi.responses import NOT_STORED
from router.openapi.status import (
    GROUNDING_SCHEMA,
    HEALTH,
    HEALTHZ,
    LIST_MODELS,
    OPENAPI,
    READYZ,
    RETRIEVE_MODEL,
    STATUS,
)
from router.request_metrics import RequestMeter, watch_router
from router.resilience.resilient import ResilientBackend
from router.resilience.retry_policy import RetryPolicy
from router.responses.not_stored import not_stored
from router.server import HttpServer
from router.status.recent_errors import RecentErrors
from router.status.report import StatusReport
from router.tracing.calls import TracedBackend
from router.tracing.middleware import TraceMiddleware
from router.tracing.stages import TraceMeter
from router.tracing.tracing import Tracing, check_installed, tracing_of
from serve_args.cluster_auth import require_token
from serve_args.cluster_environment import Values, own, require_same, require_same_on_every_node
from serve_args.identity import identity
from serve_args.open_address import require_keys
from vlm.errors import EngineFailure, ModelNotReady, VlmError
from vlm.grounding_schema import grounding_schema

if TYPE_CHECKING:
    from router.accounts.service import AccountsService


def create_app(
    backend: Backend,
    config: RouterConfig,
    meter: Meter = ignore,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    *,
    accounts: AccountsService | None = None,
) -> Starlette:
    """The whole HTTP interface over ``backend``.

    ``meter`` learns how each request to a model ended, and so do ``metrics``; where the process shows them itself,
    they are behind ``GET /metrics``. With ``tracing``, each request to a model has spans. With ``accounts``, every
    request needs a key, and pays.
    """
    status = StatusRoutes(backend, config)
    errors = RecentErrors(backend.serves)
    meter = both(errors, meter)
    files = None if config.files_url is None else FileStore(open_objects(config.files_url), config)
    file_routes = FileRoutes(files, config, check_of(config))
    account_routes = AccountRoutes(None if accounts is None else accounts.accounts, config)
    images = image_loader(config, files)
    admission, hold = admission_of(config, backend), hold_of(config, backend)
    report = StatusReport(backend, admission, errors, config.required_models)
    if metrics is not None:
        meter = both(meter, measuring(metrics, backend, admission))
    if tracing is not None:
        meter = both(meter, TraceMeter(backend.serves))
    speeds = Speeds()
    meter = both(speeds, meter)
    planner = Planner(backend, admission, speeds, config.auto, config.price_list)
    endpoints = model_endpoints(Shared(backend, images, config, meter, admission, hold), planner)
    once = _as_it_is if accounts is None else accounts.once_each
    app = Starlette(
        routes=[
            *(DescribedRoute(path, once(endpoint), OPERATIONS[path]) for path, endpoint in endpoints.items()),
            *(DescribedRoute(path, not_stored, operation) for path, operation in NOT_STORED),
            DescribedRoute("/v1/schemas/grounding.json", grounding_json, GROUNDING_SCHEMA),
            DescribedRoute("/v1/models", status.models, LIST_MODELS),
            DescribedRoute("/v1/models/{id:any}", status.model, RETRIEVE_MODEL),
            *(DescribedRoute(route.path, route.endpoint, FILES[route.name]) for route in file_routes.routes()),
            *(DescribedRoute(one.path, one.endpoint, ACCOUNTS[one.name]) for one in account_routes.routes()),
            DescribedRoute("/v1/status", report.answer, STATUS),
            DescribedRoute("/health", status.healthz, HEALTH),
            DescribedRoute("/healthz", status.healthz, HEALTHZ),
            DescribedRoute("/readyz", status.readyz, READYZ),
            DescribedRoute("/openapi.json", openapi_json, OPENAPI),
            *([Route("/metrics", shown(metrics))] if isinstance(metrics, PrometheusMetrics) else []),
        ],
        middleware=[
            Middleware(Front, config=config),
            Middleware(RequestMiddleware),
            *_traced(tracing),
            *([] if accounts is None else [accounts.middleware]),
        ],
        exception_handlers={VlmError: on_vlm_error, HTTPException: on_http_error},
        lifespan=lambda _app: _living(files, backend, tracing, accounts),
    )
    app.state.gate = Gate(
        admission,
        lambda name: read_model_name(name, config).model,
        meter,
        MODEL_PATHS,
        config,
        caller=_anybody if accounts is None else accounts.known_caller,
    )
    app.router.redirect_slashes = False  # a redirect would lose the body, and is not in the error contract
    return app


def _as_it_is(endpoint: ASGIApp) -> ASGIApp:
    """Without accounts there is nobody to whom an idempotency key could belong."""
    return endpoint


def _anybody(scope: Scope, model: str) -> str:  # noqa: ARG001  no key is asked whether it allows the model
    return caller_of(scope)


def _traced(tracing: Tracing | None) -> list[Middleware]:
    return [] if tracing is None else [Middleware(TraceMiddleware, tracing=tracing, paths=MODEL_PATHS)]


def measuring(metrics: Metrics, backend: Backend, admission: Admission) -> Meter:
    """Shows in ``metrics`` what the router holds and tries again; returns what counts the requests."""
    meter = RequestMeter(metrics, backend.serves)
    retrying = backend if isinstance(backend, ResilientBackend) else None
    watch_router(metrics, lambda: {model: admission.outstanding(model) for model in backend.names()}, retrying)
    return meter


def shown(metrics: PrometheusMetrics) -> Callable[[Request], Response]:
    """``GET /metrics``, for Prometheus."""
    return lambda _request: Response(metrics.exposition(), media_type=CONTENT_TYPE)


@asynccontextmanager
async def _living(
    files: FileStore | None, backend: Backend, tracing: Tracing | None, accounts: AccountsService | None
) -> AsyncIterator[None]:
    """What goes on beside the requests, as long as the router runs."""
    async with sweeping(files), counting(backend), nullcontext() if accounts is None else accounts.running():
        yield
    if tracing is not None:
        await asyncio.to_thread(tracing.recorder.stop)


any_text.register()


async def grounding_json(_request: Request) -> Response:
    """``GET /v1/schemas/grounding.json``: the JSON schema of the grounding object."""
    return json_response(grounding_schema())


def image_loader(config: RouterConfig, files: FileStore | None) -> ImageLoader:
    """Loads images from data URLs, from ``files``, and from the web unless ``config`` forbids it."""
    fetcher = None if config.image_urls == "off" else Fetcher(config)
    return UrlLoader(DataUrlLoader(config.image_limits), fetcher, check_of(config), files)


def check_of(config: RouterConfig) -> Callable[[bytes, str], None]:
    """Checks bytes from elsewhere: raises ``InvalidImage``, with the path of a field, for what is not an image."""
    limits = config.image_limits
    return lambda data, param: check_image(data, limits, param)


class StatusRoutes:
    """The routes that say which models there are and whether they can answer."""

    def __init__(self, backend: Backend, config: RouterConfig) -> None:
        self._backend = backend
        self._config = config

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``; with ``?expand=tasks`` also an entry for each task behind each model's name."""
        sees = sees_of(request.scope)
        statuses = [status for status in await self._backend.models() if sees(status.name)]
        entries = [entry(status, self._config) for status in statuses]
        if request.query_params.get("expand") == "tasks":
            entries += [one for status in statuses for one in task_entries(status, self._config)]
        return json_response({"object": "list", "data": entries})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/{id}``, where the id may be a Hugging Face id with its slash, or end in a task."""
        asked = request.path_params["id"]
        name = read_model_name(asked, self._config)
        sees = sees_of(request.scope)
        for status in [status for status in await self._backend.models() if sees(status.name)]:
            if status.name == name.model and name.task is None:
                return json_response(entry(status, self._config))
            if status.name == name.model:
                for one in task_entries(status, self._config):
                    if one["id"] == f"{name.model}:{name.task}":
                        return json_response(one)
        raise unknown(asked)

    async def healthz(self, _request: Request) -> Response:
        """``GET /healthz`` and ``GET /health``: this process is alive."""
        return json_response({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        """``GET /readyz``: every required model can answer, or any model where none is required."""
        statuses = await self._backend.models()
        missing = not_ready(statuses, self._config.required_models)
        if statuses and not missing:
            return json_response({"status": "ready", "models": [_status(status) for status in statuses]})
        names = ", ".join(status.name for status in missing)
        error = ModelNotReady(f"Not ready yet: {names}." if names else "No model is deployed yet.")
        absent = [status for status in missing if status not in statuses]
        return error_response(error, {"models": [_status(status) for status in [*statuses, *absent]]})


def _status(status: ModelStatus) -> dict[str, Any]:
    return {"name": status.name, "ready": status.ready, "detail": status.detail}


# Ray Serve


MAX_ONGOING_REQUESTS = 800
"""Of one replica. Must stay clearly below 1,000: so many calls of any kind Ray lets into the actor of a replica at
a time, and Serve replaces a replica whose health check does not get in. (A larger number raises Ray's to the same.)"""
MAX_QUEUED_REQUESTS = 400
"""Requests that wait in each of Serve's proxies until a replica has a place; more are refused with a 503."""


class Router:
    """The class that Serve makes replicas of; each builds its own ASGI application when it starts."""

    def __init__(self, config: RouterConfig, built_with: Values) -> None:
        """``built_with``: the variables of the process that built the application.

        Raises:
            ConfigError: This process has others.
        """
        require_same(built_with)
        self._config = config
        _prepare_process(config)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return OneRequestId(_app(self._config, RayMetrics(), tracing_of(self._config, identity)))


class ListeningRouter:
    """The same with an HTTP server of its own, where nothing of Serve's stands before it."""

    async def __init__(self, config: RouterConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        """Listen; Serve calls it in the event loop in which the replica works.

        Raises:
            ConfigError: The address cannot be listened at.
        """
        _prepare_process(config)
        self._tracing = tracing_of(config, identity)
        app = _app(config, PrometheusMetrics(), self._tracing)
        self._server = HttpServer(app, config, app.state.gate)
        self._server.start()

    def check_health(self) -> None:
        """Serve calls this every few seconds, and replaces the replica when it raises.

        Raises:
            EngineFailure: The HTTP server has ended.
        """
        if not self._server.is_serving:
            raise EngineFailure("The router's HTTP server has ended.")

    def __del__(self) -> None:
        if hasattr(self, "_server"):
            self._server.stop()
            if self._tracing is not None:
                self._tracing.recorder.stop()  # the process ends before the server's lifespan has


def _app(config: RouterConfig, metrics: Metrics, tracing: Tracing | None) -> Starlette:
    accounts = None if config.database_url is None else _accounts(config)
    backend = resilient(RayBackend(), config, tracing)
    return create_app(backend, config, metrics=metrics, tracing=tracing, accounts=accounts)


def _accounts(config: RouterConfig) -> AccountsService:
    from router.accounts.service import AccountsService  # what databases need takes half a second and 30 MiB

    return AccountsService(config)


def resilient(backend: Backend, config: RouterConfig, tracing: Tracing | None = None) -> ResilientBackend:
    """``backend``, whose requests are tried again as the settings say, each attempt with a span where that is asked."""
    policy = RetryPolicy(config.retry_share, config.retry_floor, patience_s=config.retry_patience_s)
    called = backend if tracing is None else TracedBackend(backend, tracing.target)
    return ResilientBackend(called, policy)


def _prepare_process(config: RouterConfig) -> None:
    return_memory()
    served = logging.getLogger("ray.serve")
    for ours in ("accounts", "router", "metrics", "traces"):  # Serve's own alone has handlers: lines would be lost
        logging.getLogger(ours).parent = served
    set_up(served, config.log_format, identity)


class OneRequestId:
    """Removes our ``x-request-id``, because Serve's proxy adds the same id to every answer itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self._app(scope, receive, send_without)


def build(args: Mapping[str, Any]) -> Any:
    """The router as a Serve application, named ``Router`` in a Serve config.

    ``args`` are the fields of :class:`~router.config.RouterConfig`; an unknown one is an error, and so is a cluster
    that asks for no token, or whose nodes would let requests take different ways.
    """
    from ray import serve

    config = RouterConfig.from_args(args)
    check_installed(config)
    require_token(allow_without=config.allow_unauthenticated_cluster)
    host = config.listen_address[0] if config.listen else None
    require_keys(host, has_keys=config.database_url is not None, allow_without=config.allow_without_keys)
    deployment = serve.deployment(
        name="Router", max_ongoing_requests=MAX_ONGOING_REQUESTS, max_queued_requests=MAX_QUEUED_REQUESTS
    )
    if config.listen:
        return deployment(ListeningRouter).bind(config)
    require_same_on_every_node()
    return deployment(serve.ingress()(Router)).bind(config, own())
