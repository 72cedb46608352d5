"""What runs is changed under load: no request fails, no stream is cut, and what is not changed keeps its process."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import httpx
import pytest

from router.ingress import environment
from serve_args.cluster_environment import CLUSTER
from tests.deployments.client import Question
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.test_haproxy import free_ports
from tests.router.test_serve import eventually

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # Ray's own warnings are not ours to fix
    pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone"),
]

UPDATED, OTHER, ADDED = "blip-large", "florence-2-base", "blip-2"
QUESTIONS = (Question(UPDATED), Question(OTHER, "<CAPTION>"))
BETWEEN_S = 0.1
"""Pause of a client between its requests: the changes are to be watched, not slowed down."""
PATIENCE_S = 120


def deployed(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "num_replicas": 1,
        "max_surge_percent": 100,
        "max_ongoing_requests": 100,
        "health_check_period_s": 2,
        "ray_actor_options": {"num_cpus": 0},
    }


def model(name: str, checkpoint: str = "") -> dict[str, Any]:
    engine = {"max_batch": 4, "decode_processes": 0, "cache_bytes": 33_554_432}
    folder = f"miniatures/{checkpoint or name}"
    args = {"checkpoint": folder, "device": "cpu", "dtype": "float32", "threads": 1, "engine": engine, **WITHOUT_TOKEN}
    app = {"name": name, "route_prefix": None, "import_path": "deployments.app:build", "args": args}
    return {**app, "deployments": [deployed("Replica")]}


def config() -> dict[str, Any]:
    args = {"required_models": [UPDATED, OTHER], "request_timeout_s": 60, **WITHOUT_TOKEN}
    app = {"name": "router", "route_prefix": "/", "import_path": "router.app:build", "args": args}
    return {"applications": [{**app, "deployments": [deployed("Router")]}, model(UPDATED), model(OTHER)]}


class Cluster:
    """Changes what runs as ``serve deploy`` does, and looks at it as ``serve status`` does."""

    def __init__(self, url: str) -> None:
        from ray.serve.context import _get_global_client

        self.url = url
        self._client = _get_global_client()

    def ask(self, question: Question) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=question.body(), timeout=60)

    def deploy(self, config: dict[str, Any]) -> None:
        from ray.serve.schema import ServeDeploySchema

        self._client.deploy_apps(ServeDeploySchema.model_validate(config))

    def reported(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get_serve_details()["applications"]
        return found

    def applications(self) -> list[dict[str, Any]]:
        """Those of the config that was deployed last."""
        return [one["deployed_app_config"] for one in self.reported().values()]

    def status(self, name: str) -> str:
        return str(getattr(one := self.reported()[name]["status"], "value", one)) if name in self.reported() else "GONE"

    def processes(self, name: str) -> list[int]:
        """Of its replicas that run."""
        replicas = self.reported()[name]["deployments"].values()
        found = [one for deployment in replicas for one in deployment["replicas"]]
        return [one["pid"] for one in found if str(getattr(one["state"], "value", one["state"])) == "RUNNING"]

    def wait(self, name: str, status: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.status(name) != status:
            assert time.monotonic() < deadline, f"{name} is {self.status(name)}: {self.reported().get(name)}"
            time.sleep(0.2)

    def wait_for_other_process(self, name: str, than: list[int]) -> list[int]:
        """Until only new ones run."""
        deadline = time.monotonic() + PATIENCE_S
        while self.status(name) != "RUNNING" or set(self.processes(name)) & set(than) or not self.processes(name):
            assert time.monotonic() < deadline, f"{name}: {self.reported().get(name)}"
            time.sleep(0.2)
        return self.processes(name)


class Load:
    """Clients that ask for whole answers and for streams without a pause of note, and write down what went wrong."""

    def __init__(self, url: str, questions: Sequence[Question] = QUESTIONS) -> None:
        self.url = url
        self.failed: list[str] = []
        self.answered = 0
        self.longest_s = 0.0
        """The longest that an answer took, ever since somebody set this to 0."""
        self.in_flight: set[int] = set()
        """The clients that wait for an answer."""
        self._ends = threading.Event()
        self._clients = [
            threading.Thread(target=self._ask, args=(question, stream))
            for question in questions
            for stream in (False, True)
        ]
        self._clients.append(threading.Thread(target=self._look))

    def __enter__(self) -> Load:
        for one in self._clients:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for one in self._clients:
            one.join(90)

    def goes_on(self, answers: int = 20) -> None:
        """Wait for so many further answers."""
        wanted, deadline = self.answered + answers, time.monotonic() + PATIENCE_S
        while self.answered < wanted:
            assert time.monotonic() < deadline, self.failed
            time.sleep(0.1)

    def _ask(self, question: Question, stream: bool) -> None:
        while not self._ends.wait(BETWEEN_S):
            try:
                answer = self._answer(question.body(stream=stream))
            except httpx.HTTPError as error:
                self.failed.append(f"{question.model} stream={stream}: {error!r}")
                continue
            whole = answer.status_code == 200 and (not stream or answer.text.rstrip().endswith("data: [DONE]"))
            if not whole or '"error"' in answer.text:
                self.failed.append(f"{question.model} stream={stream}: {answer.status_code} {answer.text[-300:]}")
            self.answered += 1

    def _answer(self, body: dict[str, Any]) -> httpx.Response:
        began = time.monotonic()
        self.in_flight.add(threading.get_ident())
        try:
            return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)
        finally:
            self.in_flight.discard(threading.get_ident())
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _look(self) -> None:
        while not self._ends.wait(BETWEEN_S):
            answer = httpx.get(f"{self.url}/readyz", timeout=60)
            if answer.status_code != 200:
                self.failed.append(f"/readyz: {answer.status_code} {answer.text[:300]}")


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    front = environment(config())
    at_once = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2", "RAY_raylet_start_wait_time_s": "120"}
    with cluster({**CLUSTER, **front, **free_ports(), **at_once}) as port:
        found = Cluster(f"http://127.0.0.1:{port}")
        found.deploy(config())
        for name in (UPDATED, OTHER, "router"):
            found.wait(name, "RUNNING")
        deadline = time.monotonic() + PATIENCE_S
        while httpx.get(f"{found.url}/readyz", timeout=60).status_code != 200:  # HAProxy learns of it a little later
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield found


def test_changes_of_one_application_are_not_noticed_by_clients_nor_by_the_others(running: Cluster) -> None:
    before = {name: running.processes(name) for name in ("router", UPDATED, OTHER)}
    now = config()
    with Load(running.url) as load:
        load.goes_on()

        now["applications"][1]["args"]["engine"]["max_batch"] = 3  # an update
        running.deploy(now)
        updated = running.wait_for_other_process(UPDATED, before[UPDATED])
        load.goes_on()
        assert load.failed == []

        mistyped = deepcopy(now)
        mistyped["applications"][1]["args"]["engine"]["max_bacth"] = 33
        running.deploy(mistyped)
        running.wait(UPDATED, "DEPLOY_FAILED")
        load.goes_on()
        [shown] = [one for one in httpx.get(f"{running.url}/v1/models").json()["data"] if one["id"] == UPDATED]
        assert shown["status"] == {"ready": True, "detail": "running (its last deployment failed)"}
        assert load.failed == []

        running.deploy({"applications": [*now["applications"], model(ADDED, UPDATED)]})  # mended, and one is added
        running.wait(ADDED, "RUNNING")
        running.wait(UPDATED, "RUNNING")
        eventually(lambda: running.ask(Question(ADDED)).status_code == 200)  # the router looks once a second
        running.deploy(now)
        running.wait(ADDED, "GONE")
        load.goes_on()
        assert load.failed == []

        now["applications"][0]["args"]["request_timeout_s"] = 61
        running.deploy(now)
        running.wait_for_other_process("router", before["router"])
        load.goes_on()
    assert load.failed == []
    assert running.processes(OTHER) == before[OTHER]
    assert running.processes(UPDATED) == updated


def test_a_router_goes_on_where_its_next_version_cannot_be_built(running: Cluster) -> None:
    now = running.applications()
    with Load(running.url) as load:
        load.goes_on()
        for mistake in ({"import_path": "router.app:biuld"}, {"args": {"request_timeuot_s": 60}}):
            [typed] = (word for word in ("biuld", "timeuot") if word in str(mistake))
            router = next(one for one in now if one["name"] == "router")
            running.deploy({"applications": [{**router, **mistake}, *(one for one in now if one is not router)]})
            eventually(lambda typed=typed: typed in running.reported()["router"]["message"], PATIENCE_S)
            running.wait("router", "DEPLOY_FAILED")
            load.goes_on()
        running.deploy({"applications": now})
        running.wait("router", "RUNNING")
        load.goes_on()
    assert load.failed == []
