"""A Ray cluster of our own on this machine, and on it the applications of a Serve config.

Owns starting them and telling how that goes. Knows neither what the applications are nor how all of it is ended: the
process that runs this is simply killed (see ``deployments.local``).
"""

from __future__ import annotations

import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

POLL_S = 0.25
OBJECT_STORE_BYTES = 128 * 1024**2  # images cross in messages; the store is all but unused


class StartError(Exception):
    """The system cannot run; the message says why."""


def run(config: Path, host: str, port: int, folder: Path, timeout_s: float) -> None:
    """Start everything and stay; returns only where the system cannot run, having said why.

    Args:
        config: A Serve config, whose own host and port are not used.
        folder: An empty one for Ray's sockets and logs, with a short path.
        timeout_s: Longest wait until all answer.
    """
    try:
        schema = read(config)
        _start(folder)
        _deploy(schema, host, port)
        _wait(schema, f"http://{host}:{port}", time.monotonic() + timeout_s)
        print(_welcome(schema, f"http://{host}:{port}"), flush=True)
        while True:
            signal.pause()
    except StartError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def read(path: Path) -> Any:
    """The config at ``path`` as Ray's ``ServeDeploySchema``.

    Raises:
        StartError: There is none, or it is none.
    """
    import yaml
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    try:
        return ServeDeploySchema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise StartError(f"{path} cannot be used: {error}") from error


def _start(folder: Path) -> None:
    import ray

    _say("starting Ray")
    ray.init(
        address="local",
        namespace="serve",
        include_dashboard=False,
        logging_level="warning",
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder),
    )
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray has just put its own handler there, which is slow


def _deploy(schema: Any, host: str, port: int) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client

    options = {**schema.http_options.model_dump(), "host": host, "port": port}
    serve.start(proxy_location=schema.proxy_location, http_options=options, logging_config=schema.logging_config)
    # What `serve run` does with a config; Serve has no public call for it.
    _get_global_client().deploy_apps(schema)


def _wait(schema: Any, url: str, deadline: float) -> None:
    from ray import serve

    running = Progress(serve.status, {application.name for application in schema.applications}, _say)
    steps: tuple[Callable[[], bool], ...] = (running, lambda: _answers(f"{url}/readyz"))
    for done in steps:
        while not done():
            if time.monotonic() > deadline:
                raise StartError("the system is not ready in time; --timeout gives it longer")
            time.sleep(POLL_S)


class Progress:
    """Whether all applications run; says so of each whose state has changed."""

    def __init__(self, status: Callable[[], Any], names: set[str], say: Callable[[str], None]) -> None:
        """``status`` is ``ray.serve.status``, or what stands in for it in a test."""
        self._status = status
        self._names = names
        self._say = say
        self._seen: Mapping[str, str] = {}

    def __call__(self) -> bool:
        """Look once.

        Raises:
            StartError: An application has failed; with the cause in one line, all that Serve says having been said.
        """
        applications = {name: app for name, app in self._status().applications.items() if name in self._names}
        states = {name: str(app.status.value) for name, app in sorted(applications.items())}
        for name, state in states.items():
            if state != self._seen.get(name):
                self._say(f"{name}: {state.lower().replace('_', ' ')}")
            if state == "DEPLOY_FAILED":
                self._say(_why(applications[name]))
                raise StartError(f"{name} cannot run: {_cause(applications[name])}")
        self._seen = states
        return len(states) == len(self._names) and set(states.values()) == {"RUNNING"}


def _why(application: Any) -> str:
    """What Serve says of a failed application and of its deployments."""
    messages = (application.message, *(one.message for one in application.deployments.values()))
    return "\n".join(message for message in messages if message) or "Serve does not say why."


def _cause(application: Any) -> str:
    """The last line of a traceback, which names the exception that all the rest is about."""
    return _why(application).strip().splitlines()[-1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own loopback address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _say(line: str) -> None:
    print(f"gigarouter: {line}", file=sys.stderr, flush=True)


def _welcome(schema: Any, url: str) -> str:
    models = (application.name for application in schema.applications if application.route_prefix is None)
    model = next(models, "...")
    return f"""
ready: {url}/v1 (Ctrl-C stops it). Try, from the repository:

  printf '{{"model": "{model}", "messages": [{{"role": "user", "content": [
    {{"type": "image_url", "image_url": {{"url": "data:image/png;base64,%s"}}}}]}}]}}' \\
    "$(base64 < examples/circle-and-square.png | tr -d '\\n')" |
  curl -s {url}/v1/chat/completions -H 'content-type: application/json' -d @-
"""
