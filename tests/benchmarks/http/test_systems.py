"""What the systems are asked and how they are started; a turn of each kind, and what is written about it."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks import processes
from benchmarks.http import measure, servers, turns
from benchmarks.http.images import Images
from benchmarks.http.plan import SCALES
from benchmarks.http.report import Step
from benchmarks.http.systems import (
    CONFIG,
    OURS,
    STREAMED,
    chat,
    config_of,
    plain,
    raw_of_stream,
    start_litserve,
    start_ray_serve,
)  # fmt: skip
from benchmarks.http.turns import Served, step, take_turns
from benchmarks.peers.captions import Setting, parser, setting_of
from benchmarks.peers.direct import serve
from deployments.local import serve_config
from router.app import create_app
from router.backends.base import LocalBackend
from router.chat.request import parse_chat
from router.config import RouterConfig
from tests.listening import listening
from vlm.checkpoint.files import Checkpoint
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load

SETTING = Setting("a/folder", "<CAPTION> it", 20, 3, 1)
IMAGES = Images(2, (64, 48))


def test_a_request_announces_its_length_and_is_one_that_the_router_reads() -> None:
    (sent,) = islice(chat("blip-large", 7).requests(IMAGES, 8000), 1)
    head, _, body = b"".join(sent.parts).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    parsed = parse_chat(body, RouterConfig())
    assert len(parsed.images) == 1
    asked = json.loads(body)
    assert (asked["model"], asked["max_tokens"], asked["num_beams"], asked["stream"]) == ("blip-large", 7, 1, False)


def test_our_config_is_that_of_make_serve_with_one_model(tmp_path: Path) -> None:
    config = config_of("kosmos-2", waiting=77, replicas=3)
    assert [one["name"] for one in config["applications"]] == ["router", "kosmos-2"]
    usual = yaml.safe_load(CONFIG.read_text("utf-8"))
    model = next(one for one in usual["applications"] if one["name"] == "kosmos-2")
    found = config["applications"][1]
    assert RouterConfig.from_args(config["applications"][0]["args"]).places_per_replica == 77
    assert RouterConfig.from_args(config_of("kosmos-2")["applications"][0]["args"]).places_per_replica is None
    assert found["deployments"][0].pop("num_replicas") == 3
    assert found["args"]["engine"].pop("max_waiting") == 77
    model["args"]["engine"].pop("max_waiting")
    assert found == model
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_of("kosmos-2", waiting=77)), "utf-8")
    serve_config.checked(tmp_path / "config.yaml")


def test_a_model_that_is_not_served_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no model 'nothing'"):
        config_of("nothing", waiting=1)


def test_a_setting_survives_a_command_line(tmp_path: Path) -> None:
    assert setting_of(parser("").parse_args(SETTING.options())) == SETTING
    for start in (start_litserve(SETTING, 5, Path("python")), start_ray_serve(SETTING, 5, tmp_path)):
        assert set(SETTING.options()) < set(start.command)


def test_the_text_of_a_stream_is_in_the_event_that_ends_it() -> None:
    events = [{"delta": {"content": "a"}}, {"delta": {"grounding": {"raw": "a b</s>"}}}]
    lines = [f"data: {json.dumps({'choices': [event]})}\n\n".encode() for event in events]
    assert raw_of_stream(b"".join([*lines, b"data: [DONE]\n\n"])) == "a b</s>"
    assert raw_of_stream(b"data: [DONE]\n\n") == ""


# Turns, against our application in this process


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    loaded = load(Checkpoint.open("miniatures/blip-large"), dtype="float32", device="cpu")
    with (
        Engine(loaded, EngineConfig(max_batch=2, max_waiting=64, cache_bytes=16 * 2**20, prepare_threads=1)) as engine,
        listening(create_app(LocalBackend({"blip-large": engine}), RouterConfig(places_per_replica=32))) as address,
    ):
        yield int(address.rpartition(":")[2])


def test_our_answers_are_those_of_transformers_in_a_whole_round(port: int) -> None:
    plan = replace(SCALES["tiny"], images=2)
    setting, raws, images = measure.prepare("blip-large", plan)
    assert setting.folder.endswith("miniatures/blip-large")
    ours = Served(OURS, port, None, chat("blip-large", plan.tokens), images, raws)
    streamed = replace(ours, name=STREAMED, format=chat("blip-large", plan.tokens, streaming=True), streaming=True)
    plain_cell, stream_cell = take_turns([ours, streamed], "blip-large", 2, rounds=2, seconds=0.2, objective_s=60.0)
    assert [plain_cell.system, stream_cell.system] == [OURS, STREAMED]
    for cell in (plain_cell, stream_cell):
        assert cell.differ == 0
        assert cell.answers >= 2 * 2 * 2
        assert len(cell.rates) == 2
        assert cell.goodput > 0
        assert 0 < cell.times.p50 <= cell.times.p95 <= cell.times.p99
    assert stream_cell.first.p50 < stream_cell.times.p50
    assert plain_cell.first == plain_cell.times

    (done,) = measure.rising([ours], "blip-large", [20.0], replace(plan, objective_s=60.0), lambda _line: None)
    assert done.holds
    assert done.failed == 0
    assert done.requests > 0


def test_another_answer_than_that_of_transformers_is_counted() -> None:
    with peer(["right", "wrong"]) as address:
        system = Served("peer", int(address.rpartition(":")[2]), None, plain(), IMAGES, ["right", "right"])
        turn = system.turn(2, 0.05)
    assert 0 < turn.differ < turn.answers
    assert turn.rate > 0


def test_an_answer_that_is_an_error_ends_the_measurement() -> None:
    with (
        peer([], status=503) as address,
        pytest.raises(SystemExit, match=r"peer has answered with 503: .*none"),
    ):
        Served("peer", int(address.rpartition(":")[2]), None, plain(), IMAGES, ["", ""]).turn(1, 0.01)


def test_refused_arrivals_are_failures_and_break_the_objective() -> None:
    with peer([], status=503) as address:
        system = Served("peer", int(address.rpartition(":")[2]), None, plain(), IMAGES, ["", ""])
        done = step(system, "a-model", 100.0, seconds=0.1, objective_s=1.0, seed=1)
    assert done.failed == done.requests > 0
    assert (done.holds, done.goodput) == (False, 0)


def test_systems_that_break_take_no_further_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def made_up(system: Any, model: str, rate: float, **_: object) -> Any:
        asked.append((system, rate))
        return replace(STEP, system=system, offered=rate, holds=rate < {"fast": 3, "slow": 2}[system])

    monkeypatch.setattr(measure, "step", made_up)
    done = list(measure.rising(["fast", "slow"], "m", [1.0, 2.0, 3.0, 4.0], SCALES["tiny"], lambda _line: None))  # type: ignore[list-item]
    assert asked == [("fast", 1), ("slow", 1), ("fast", 2), ("slow", 2), ("fast", 3)]
    assert [one.holds for one in done] == [True, True, True, False, False]


STEP = Step("m", "s", 1.0, 1, turns.NO_TIMES, turns.NO_TIMES, 1.0, 0, holds=True)


def peer(texts: Sequence[str], status: int = 200) -> Any:
    """A server that says one text after the other."""
    said = iter([*texts, *["right"] * 10_000])

    async def predict(request: Request) -> JSONResponse:
        await request.body()
        return JSONResponse({"text": next(said)} if status == 200 else {"error": "none"}, status)

    return listening(Starlette(routes=[Route("/predict", predict, methods=["POST"])]))


def test_transformers_answers_in_whole_batches() -> None:
    class Captions:
        def of(self, images: Sequence[bytes]) -> list[str]:
            return [f"{len(images)} {image.decode()}" for image in images]

    out = io.StringIO()
    serve(Captions(), [b"a", b"b", b"c"], io.StringIO('{"batch": 2, "seconds": 0}\n'), out)  # type: ignore[arg-type]
    texts, measured = map(json.loads, out.getvalue().splitlines())
    assert texts == {"texts": ["1 a", "1 b", "1 c"]}
    assert measured["images"] == 2
    assert measured["seconds"] > 0


# Servers

SLEEPING = """
import http.server, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")


def start(port: int, program: str = SLEEPING) -> servers.Start:
    return servers.Start("a-server", [sys.executable, "-c", program, str(port)], port, "/", {})


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(process: int) -> str:
    fields = Path(f"/proc/{process}/stat")
    return fields.read_text("utf-8").rpartition(")")[2].split()[0] if fields.exists() else "gone"


@linux
def test_a_server_is_held_still_with_its_children_and_ended_with_them(tmp_path: Path) -> None:
    with servers.running([start(servers.free_port())], tmp_path) as (server,):
        tree = processes.tree(server.process)
        assert len(tree) == 2
        with servers.alone(None, [server]):
            wait_until(lambda: {state(one) for one in tree} == {"T"})
        assert "T" not in {state(one) for one in tree}
        with servers.alone(server, [server]):
            assert "T" not in {state(one) for one in tree}
    assert not any(map(processes.is_alive, tree))


@linux
def test_a_server_that_is_not_ready_is_an_error_with_what_it_printed(tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit, match=r"no such luck(.|\n)*a-server is not ready"),
        servers.running([start(servers.free_port(), "raise SystemExit('no such luck')")], tmp_path),
    ):
        pytest.fail("there is no server")


def test_sigterm_ends_a_program_as_an_exception_does(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr("benchmarks.http.servers.signal.signal", handlers.__setitem__)
    servers.end_on_signals()
    with pytest.raises(SystemExit):
        handlers[signal.SIGTERM](signal.SIGTERM, None)
