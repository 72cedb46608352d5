"""The whole system over HTTP: router, models, and what happens when a part of it goes away."""

from __future__ import annotations

import base64
import os
import random
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.alike import assert_alike
from tests.deployments.client import IMAGE, Question, check_error, connect
from tests.deployments.system import NARROW, WAITING, System, wait_until
from tests.images import encoded, scenes

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),  # the first of them waits until the system is ready
    pytest.mark.skipif(sys.platform != "linux", reason="looks its processes up in /proc"),
]

CAPTION = "a red circle left of a blue square"
REGIONS = {"red circle": (75, 135, 265, 325), "blue square": (390, 150, 560, 320)}  # in pixels of the image
SERVED = ("blip-large", "florence-2-base", "kosmos-2", "moondream-2", NARROW)
CHECKPOINTS = {name: f"miniatures/{name}" for name in SERVED} | {NARROW: "miniatures/florence-2-base"}
LONG: dict[str, Any] = {"repetition_penalty": 10.0}  # the answer goes on to the end of the context


LONG_QUESTION = Question(NARROW, "<MORE_DETAILED_CAPTION>")


def client(system: System) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{system.url}/v1", api_key="none", max_retries=0, timeout=60)


# The front


def test_limits_hold_before_serve_sees_a_request(system: System) -> None:
    """Only in Serve's own process can what is not HTTP be answered in the error contract."""
    with socket.create_connection(("127.0.0.1", system.port), timeout=20) as client:
        client.sendall(b"no HTTP\r\n\r\n")
        assert b'"code":"invalid_http"' in client.recv(65536)


# Answers


CAPTIONS = [("blip-large", ""), ("florence-2-base", "<CAPTION>"), ("moondream-2", "")]
CAPTIONED = {"moondream-2": {"task": {"name": "caption", "length": "short"}}}


@pytest.mark.parametrize(("model", "text"), CAPTIONS)
def test_openai_sdk_gets_the_same_answer_whole_and_streamed(system: System, model: str, text: str) -> None:
    messages, extra = Question(model, text).messages(), CAPTIONED.get(model)
    with client(system) as sdk:
        whole = sdk.chat.completions.create(model=model, messages=messages, extra_body=extra)
        with sdk.chat.completions.create(model=model, messages=messages, extra_body=extra, stream=True) as stream:
            choices = [chunk.choices[0] for chunk in stream]
    assert whole.choices[0].message.content == CAPTION
    assert "".join(choice.delta.content or "" for choice in choices) == CAPTION
    assert choices[-1].finish_reason == whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_detection_comes_as_typed_json_beside_the_text(system: System) -> None:
    with client(system) as sdk:
        answer = sdk.chat.completions.create(
            model="microsoft/Florence-2-base", messages=Question("florence-2-base", "<OD>").messages()
        )
    assert answer.model == "florence-2-base"
    grounding = answer.choices[0].message.model_dump()["grounding"]
    assert grounding["images"] == [{"width": 640, "height": 480}]
    assert sorted(found["label"] for found in grounding["objects"]) == ["circle", "square"]
    for found in grounding["objects"]:
        x_min, y_min, x_max, y_max = found["box"]
        assert found["box_px"] == pytest.approx([x_min * 640, y_min * 480, x_max * 640, y_max * 480], abs=0.01)


def test_a_grounded_caption_ties_its_words_to_regions(system: System) -> None:
    [choice] = Question("kosmos-2", "<grounding>An image of").answer(system)["choices"]
    text, objects = choice["message"]["content"], choice["message"]["grounding"]["objects"]
    for found, (name, region) in zip(objects, REGIONS.items(), strict=True):
        [[start, end]] = found["spans"]
        assert text[start:end] == found["label"]
        assert found["label"].endswith(name)
        assert within(middle(found["box_px"]), region)


def test_a_question_needs_no_image(system: System) -> None:
    """The answer itself does not matter: the miniature was not trained for this."""
    answer = Question("moondream-2", "How many shapes are there?", None).answer(system)
    assert answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["message"]["grounding"]["images"] == []
    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == 0


def test_reasoning_comes_with_the_points_that_it_mentions(system: System) -> None:
    task = {"name": "query", "text": "How many shapes are there?", "reasoning": True}
    [choice] = Question("moondream-2").answer(system, task=task)["choices"]
    message = choice["message"]
    assert message["content"] == "two"
    assert message["reasoning_content"] == message["grounding"]["reasoning"]
    for found, (name, region) in zip(message["grounding"]["objects"], REGIONS.items(), strict=True):
        assert found["label"] == name
        assert within(found["point_px"], region)


@pytest.mark.parametrize(("task", "kind"), [("detect", "box"), ("point", "point")])
def test_requested_objects_come_as_boxes_or_points(system: System, task: str, kind: str) -> None:
    answer = Question("moondream-2").answer(system, task={"name": task, "labels": list(REGIONS)})
    objects = answer["choices"][0]["message"]["grounding"]["objects"]
    assert {(found["label"], found["kind"]) for found in objects} == {(name, kind) for name in REGIONS}
    for found in objects:
        assert within(found["point_px"] or middle(found["box_px"]), (0, 0, 640, 480))


def middle(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def within(point: Sequence[float], region: Sequence[float]) -> bool:
    return region[0] < point[0] < region[2] and region[1] < point[1] < region[3]


def test_thirty_two_at_once_are_answered_as_one_by_one(system: System) -> None:
    images = scenes(8)
    kinds = [("blip-large", ""), ("blip-large", "a red"), ("florence-2-base", "<OD>"), ("florence-2-base", "<CAPTION>")]
    questions = [Question(model, text, image) for image in images for model, text in kinds]

    def ask(question: Question) -> Any:
        answer = question.post(system)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"]

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(ask, questions))
    assert_alike(together, [ask(question) for question in questions])


# What is served


def test_health_and_readiness(system: System) -> None:
    assert httpx.get(f"{system.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{system.url}/readyz")
    assert ready.status_code == 200
    assert {model["name"]: model["ready"] for model in ready.json()["models"]} == dict.fromkeys(SERVED, True)


def test_lists_the_applications_as_models(system: System) -> None:
    with client(system) as sdk:
        assert {model.id for model in sdk.models.list()} == set(SERVED)


def test_lists_what_each_model_has_loaded(system: System) -> None:
    def is_described() -> bool:
        listed = httpx.get(f"{system.url}/v1/models").json()["data"]
        return {model["id"]: model["checkpoint"] for model in listed} == CHECKPOINTS

    wait_until(is_described, 20, "the description of every model")


# What the system does to the machine


def test_nothing_listens_beyond_the_loopback(system: System) -> None:
    """Of router and models too, where Serve opens a port that no setting moves."""
    found = system.listening()
    assert len(found) > 10, found
    assert any("ServeReplica:router" in command for _, command in found)
    assert any("ServeReplica:blip-large" in command for _, command in found)
    assert {address for address, _ in found} == {"127.0.0.1"}, found


def test_what_ray_leaves_on_the_disk_is_for_this_user_alone(system: System) -> None:
    above = system.folder.stat()
    assert (stat.S_IMODE(above.st_mode), above.st_uid) == (0o700, os.getuid())
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in system.folder.iterdir()}
    assert modes == {"r": 0o777, "files": 0o700}  # Ray opens to all what it is given


def test_no_process_has_the_token_on_its_command_line(system: System) -> None:
    """Every user of the machine can read command lines, and nobody else's environment."""
    [token] = system.environment("RAY_AUTH_TOKEN")
    assert token
    assert not system.processes(token)


def test_no_file_holds_the_token_or_anything_of_a_request(system: System) -> None:
    """The image is one that Ray's processes hand to each other through its object store."""
    noise = encoded(Image.frombytes("RGB", (400, 400), random.Random(0).randbytes(400 * 400 * 3)), "BMP")
    question = Question("moondream-2", "How many zebras does a zeppelin hold?", noise)
    assert question.post(system, max_tokens=4).status_code == 200
    [token] = system.environment("RAY_AUTH_TOKEN")
    secrets = (question.text.encode(), noise[1000:1024], base64.b64encode(noise[999:1023]), token.encode())
    for path in [one for one in system.folder.rglob("*") if one.is_file()]:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content], path


# Errors, through both hops


def test_unknown_model(system: System) -> None:
    check_error(Question("kosmos-9").post(system), 404, "model_not_found")


def test_bad_image_is_refused_by_the_router(system: System) -> None:
    check_error(Question("blip-large", image=b"no image").post(system), 400, "invalid_image_format")


def test_what_only_the_model_can_judge_comes_back_typed(system: System) -> None:
    answer = Question("blip-large").post(system, task="detect")
    check_error(answer, 400, "unsupported_task")
    cut = Question("florence-2-base", "<CAPTION>", IMAGE[: len(IMAGE) // 2])
    assert cut.post(system).status_code == 400


def test_a_bad_request_is_not_logged_as_an_error_of_the_server(system: System) -> None:
    before = len(system.log)
    check_error(Question("blip-large").post(system, task="detect"), 400, "unsupported_task")
    assert Question("florence-2-base", "<CAPTION>", IMAGE[: len(IMAGE) // 2]).post(system).status_code == 400
    time.sleep(1)  # Ray reads the logs of its processes every 0.1 s or so
    logged = system.log[before:]
    assert "Traceback" not in logged
    assert "ERROR" not in logged


def test_clients_that_disconnect_free_the_engine(system: System) -> None:
    """Fill the engine with long answers, disconnect, and ask again: those answers must not be in the way."""
    began = time.monotonic()
    assert LONG_QUESTION.post(system, **LONG).status_code == 200
    alone_s = time.monotonic() - began
    capacity = WAITING + 1
    # Many more than the capacity, because some are answered while the others still arrive.
    connections = [connect(system, LONG_QUESTION.body(stream=True, **LONG)) for _ in range(capacity + 40)]
    wait_until(lambda: any(map(is_refused, connections)), 20, "a refusal")
    for connection in connections:
        connection.close()
    left = time.monotonic()
    wait_until(lambda: LONG_QUESTION.post(system, max_tokens=1).status_code == 200, 30, "an answer")
    assert time.monotonic() - left < capacity * alone_s / 2


def is_refused(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(64, socket.MSG_PEEK).startswith(b"HTTP/1.1 503")
    except TimeoutError:
        return False


# Losing a part


def test_a_killed_replica_costs_typed_errors_and_comes_back(system: System) -> None:
    question = Question("blip-large")
    (replica,) = system.processes("ServeReplica:blip-large")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(question.post, system) for _ in range(24)]
        os.kill(replica, signal.SIGKILL)
        answers = [one.result() for one in asked]
    for answer in answers:
        if answer.status_code != 200:
            assert answer.status_code in (500, 503)
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert Question("florence-2-base", "<OD>").post(system).status_code == 200
    wait_until(lambda: question.post(system).status_code == 200, 60, "the model's recovery")
    assert question.post(system).json()["choices"][0]["message"]["content"] == CAPTION
    assert system.processes("ServeReplica:blip-large") != {replica}


# Starting and ending


def test_a_port_in_use_is_one_clear_error_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        second = System(tmp_path, "--port", str(port))  # of two ports, the later counts
        assert second.wait(10) == 1
    assert second.log == f"error: port {port} on 127.0.0.1 is in use; take another one.\n"


def alive(processes: set[int]) -> set[int]:
    return {process for process in processes if Path(f"/proc/{process}").exists()}


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[System]:
    """A system whose Ray is starting."""
    system = System(tmp_path)
    try:
        wait_until(lambda: bool(system.processes("raylet")), 60, "Ray's own processes")
        yield system
    finally:
        system.end()


def test_interrupt_while_starting_leaves_nothing(starting: System) -> None:
    tree = starting.tree()
    assert starting.interrupt() == 0
    assert starting.processes() | alive(tree) == set()


def test_nothing_outlives_a_starter_that_is_killed(starting: System) -> None:
    folder, tree = starting.folder, starting.tree()
    starting.kill()
    wait_until(lambda: not starting.processes() | alive(tree), 30, "the end of all processes")
    assert not folder.exists()


def test_interrupt_leaves_nothing(system: System) -> None:
    """The last one: it ends the system that the others use."""
    folder, tree = system.folder, system.tree()
    assert folder.is_dir()
    assert system.interrupt() == 0
    assert system.processes() | alive(tree) == set()
    assert not folder.exists()
    with socket.create_server(("127.0.0.1", system.port)):
        pass
