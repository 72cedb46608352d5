"""``gigarouter status`` against the router itself, without a network: what is printed, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import httpx2
import pytest

from gigarouter import status
from router.app import create_app
from router.backends.base import ModelStatus, ReplicaStatus
from router.config import RouterConfig
from tests.router.world import FakeBackend
from vlm.errors import ModelNotReady

UP = ModelStatus("blip-large", ready=True, detail="running", replicas=(ReplicaStatus("ab12", "running"),) * 2)
DOWN = ModelStatus("kosmos-2", ready=False, detail="deploy failed")


def run(transport: httpx2.AsyncBaseTransport, *arguments: str) -> int:
    return asyncio.run(status.show(status.parser().parse_args(["http://router/", *arguments]), transport))


def router(*statuses: ModelStatus, required: Sequence[str] = ()) -> httpx2.ASGITransport:
    return httpx2.ASGITransport(
        create_app(FakeBackend(statuses=statuses), RouterConfig(required_models=tuple(required)))
    )


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(router(UP, DOWN)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ready: 1 of 2 models can answer")
    assert lines[2].split() == ["MODEL", "READY", "REPLICAS", "PLACES", "QUEUE", "LAST", "ERROR"]
    assert lines[3].split()[:4] == ["blip-large", "yes", "2", "running"]
    assert lines[3].endswith("0.0 s  -")
    assert lines[4].split()[:3] == ["kosmos-2", "no", "none"]
    assert lines[5] == "kosmos-2: deploy failed"


def test_a_required_model_that_cannot_answer_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(router(UP, DOWN, required=["kosmos-2"])) == status.FAILED
    out = capsys.readouterr().out
    assert out.startswith("NOT READY: 1 of 2 models can answer")
    assert "kosmos-2    NO" in out


def test_json_is_what_the_router_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(router(UP), "--json") == 0
    assert json.loads(capsys.readouterr().out)["object"] == "status"


def test_errors_are_shown_with_their_time() -> None:
    error = {"code": "overloaded", "status": 503, "count": 7, "last_at": 1_700_000_000}
    places = {"held": 70, "worked_on": 32, "limit": 64}
    model = {"id": "m", "ready": True, "required": False, "detail": "running", "replicas": [], "places": places,
             "queue_s": None, "errors": [error]}  # fmt: skip
    lines = status.lines_of(
        {"ready": True, "started_at": 1_699_999_000, "now": 1_700_000_300, "models": [model], "errors": [error]}
    )
    assert lines[0].endswith("counting for 21 min")
    assert lines[3] == "m      yes    none      70 of 64  ?      overloaded x7, last 5 min ago (2023-11-14 22:13:20Z)"
    assert lines[4] == "of requests for no model: overloaded x7, last 5 min ago (2023-11-14 22:13:20Z)"


class Silent(FakeBackend):
    async def models(self) -> Sequence[ModelStatus]:
        raise ModelNotReady("The cluster does not answer yet.")


@pytest.mark.parametrize(
    ("transport", "words"),
    [
        (httpx2.ASGITransport(create_app(Silent(), RouterConfig())), "503: The cluster does not answer yet."),
        (httpx2.MockTransport(lambda _request: httpx2.Response(200, text="<html>")), "is not gigarouter"),
        (httpx2.MockTransport(lambda _request: httpx2.Response(200, json={"object": "list"})), "is not gigarouter"),
    ],
)
def test_what_is_no_status_is_a_failure(
    transport: httpx2.AsyncBaseTransport, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(transport) == status.FAILED
    assert words in capsys.readouterr().err


def test_nothing_that_answers_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["http://127.0.0.1:9", "--timeout", "2"]) == status.FAILED
    assert "Is it running?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("foo",), ("ftp://127.0.0.1",), ("--timeout", "-1")])
def test_a_command_line_that_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        status.main(arguments)
    assert ended.value.code == 2


def test_a_variable_with_no_url_is_refused_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIGAROUTER_URL", "router.example.com")
    with pytest.raises(SystemExit) as ended:
        status.main([])
    assert ended.value.code == 2
