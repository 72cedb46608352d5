"""A Ray cluster of our own on this machine, with the applications of a Serve config on it.

Starts them and reports their progress. It does not stop them: the process that runs it is killed (see
``deployments.local``).
"""

from __future__ import annotations

import logging
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployments.check_schema import schema_problems
from deployments.local import loopback, object_store, serve_config
from router.ingress import ROUTER

POLL_S = 0.25
REMIND_S = 30.0  # long enough to stay silent for the miniatures, short enough to show that a download goes on
STATES = {"DEPLOYING": "starting", "RUNNING": "ready"}
"""Serve's states of an application in words; the others are printed as they are."""


_NEEDS_KEY = """Every request needs a key. One that asks models is made by
`gigarouter keys create` (docs/accounts.md); put it into GIGAROUTER_API_KEY. """
_KEY_HEADER = ' -H "authorization: Bearer $GIGAROUTER_API_KEY"'


class StartError(Exception):
    """The system cannot run; the message says why."""


def run(config: Mapping[str, Any], host: str, port: int, directory: Path, timeout_s: float) -> None:
    """Start everything and stay; returns only where the system cannot run, after printing why.

    Args:
        config: The content of a Serve config; its own host and port are not used.
        directory: An empty one for Ray's sockets and logs, with a short path.
        timeout_s: Maximum wait until all applications answer.
    """
    try:
        schema = schema_of(serve_config.without_proxy(config, host, port))
        _start(directory)
        _deploy(schema, host, port)
        _wait(schema, f"http://{host}:{port}", time.monotonic() + timeout_s)
        print(_welcome(schema, f"http://{host}:{port}"), flush=True)
        while True:
            signal.pause()
    except StartError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def schema_of(config: Mapping[str, Any]) -> Any:
    """The config as Ray's ``ServeDeploySchema``.

    Raises:
        StartError: It has unknown keys, or Ray refuses it; the message has a line on each place at fault.
    """
    from ray.serve.schema import ServeDeploySchema

    if problems := schema_problems(config):
        raise StartError("\n".join(("the config cannot work:", *map(str, problems))))
    return ServeDeploySchema.model_validate(config)


def _start(directory: Path) -> None:
    import ray

    _print_line("starting Ray")
    if warning := object_store.warning():
        _print_line(warning)
    ray.init(
        address="local",
        namespace="serve",
        include_dashboard=False,
        logging_level="warning",
        object_store_memory=object_store.store_bytes(),
        runtime_env={"worker_process_setup_hook": loopback.hook()},
        _temp_dir=str(directory),
        _system_config={**loopback.SYSTEM_CONFIG, **object_store.SYSTEM_CONFIG},
    )
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray has just set its own handler, which is slow


def _deploy(schema: Any, host: str, port: int) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # the lines below say the same in fewer words
    options = {**schema.http_options.model_dump(), "host": host, "port": port}
    serve.start(proxy_location=schema.proxy_location, http_options=options, logging_config=schema.logging_config)
    # What `serve run` does with a config; Serve has no public call for it.
    _get_global_client().deploy_apps(schema)


def _wait(schema: Any, url: str, deadline: float) -> None:
    from ray import serve

    progress = Progress(serve.status, {application.name for application in schema.applications}, _print_line)
    steps: tuple[Callable[[], bool], ...] = (progress, lambda: answers(f"{url}/readyz"))
    for done in steps:
        while not done():
            if time.monotonic() > deadline:
                names = ", ".join(progress.waiting) or f"{url}/readyz"
                raise StartError(f"not ready in time: {names}. --timeout sets a longer wait.")
            time.sleep(POLL_S)


class Progress:
    """Whether all applications run; reports each whose state has changed, and now and then those still awaited."""

    def __init__(
        self,
        status: Callable[[], Any],
        names: set[str],
        print_line: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``status`` is ``ray.serve.status``, or a substitute in a test."""
        self._status = status
        self._print = print_line
        self._clock = clock
        self._states: dict[str, str] = dict.fromkeys(sorted(names), "")
        self._printed_at = clock()

    @property
    def waiting(self) -> list[str]:
        """Names of the applications that do not run yet."""
        return [name for name, state in self._states.items() if state != "RUNNING"]

    def __call__(self) -> bool:
        """Read the status once.

        Raises:
            StartError: An application has failed; its message is the cause in one line, printed after all that Serve
                reports.
        """
        applications = self._status().applications
        for name in self._states:
            if name in applications:
                self._update(name, applications[name])
        if self.waiting and self._clock() - self._printed_at > REMIND_S:
            self._report(f"still waiting for {', '.join(self.waiting)}")
        return not self.waiting

    def _update(self, name: str, application: Any) -> None:
        state = str(application.status.value)
        if state != self._states[name]:
            self._states[name] = state
            self._report(f"{name}: {STATES.get(state, state.lower().replace('_', ' '))}")
        if state == "DEPLOY_FAILED":
            self._print(_why(application))
            raise StartError(f"{name} cannot run: {_cause(application)}")

    def _report(self, line: str) -> None:
        self._printed_at = self._clock()
        self._print(line)


def _why(application: Any) -> str:
    """What Serve reports of a failed application and of its deployments."""
    messages = (application.message, *(one.message for one in application.deployments.values()))
    return "\n".join(message for message in messages if message) or "Serve gives no reason."


def _cause(application: Any) -> str:
    """The last line, which in a traceback names the exception."""
    return _why(application).strip().splitlines()[-1]


def answers(url: str) -> bool:
    """Whether an address on this machine answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own loopback address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _print_line(line: str) -> None:
    print(f"gigarouter: {line}", file=sys.stderr, flush=True)


def _welcome(schema: Any, url: str) -> str:
    models = (application.name for application in schema.applications if application.import_path != ROUTER)
    model = next(models, "...")
    asks_for_keys = any((one.args or {}).get("database_url") for one in schema.applications)
    first, header = (_NEEDS_KEY, _KEY_HEADER) if asks_for_keys else ("", "")
    return f"""
ready: {url}/v1 (Ctrl-C stops it). {first}Try, from the repository:

  printf '{{"model": "{model}", "messages": [{{"role": "user", "content": [
    {{"type": "image_url", "image_url": {{"url": "data:image/png;base64,%s"}}}}]}}]}}' \\
    "$(base64 < examples/circle-and-square.png | tr -d '\\n')" |
  curl -s {url}/v1/chat/completions -H 'content-type: application/json'{header} -d @-
"""
