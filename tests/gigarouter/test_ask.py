"""``gigarouter ask`` against the router itself, without a network: what is sent, what is printed, and how it fails."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from gigarouter import ask
from router.app import create_app
from router.config import RouterConfig
from tests.router.world import BALL, IMAGE, FakeBackend, geometry, script
from vlm.errors import Overloaded


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(IMAGE)
    return path


def run(backend: FakeBackend, *arguments: object) -> int:
    """Ask the router, which ``backend`` answers for; returns the exit status."""
    options = ask.parser().parse_args([str(one) for one in arguments])
    transport = httpx2.ASGITransport(create_app(backend, RouterConfig()))
    return asyncio.run(ask.ask_all(options, transport))


def test_an_answer_is_printed(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeBackend(), image, "-m", "blip-large") == 0
    assert capsys.readouterr().out == "a red square\n"


def test_several_images_are_answered_in_their_order(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend()
    assert run(backend, image, image, "-m", "blip-large") == 0
    assert capsys.readouterr().out == f"{image}: a red square\n" * 2
    assert len(backend.asked) == 2


def test_the_model_gets_what_was_typed(image: Path) -> None:
    backend = FakeBackend(script(geometry()))
    typed = ("-t", "detect", "--label", "ball", "--label", "kite", "--max-tokens", 7, "--temperature", 0, "--seed", 3)
    assert run(backend, image, "-m", "florence-2-base", *typed) == 0
    [(model, request)] = backend.asked
    assert model == "florence-2-base"
    assert request.task is not None
    assert (request.task.name, request.task.labels) == ("detect", ("ball", "kite"))
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.seed) == (7, 0, 3)
    assert request.image == IMAGE


def test_objects_are_lines(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeBackend(script(geometry())), image, "-m", "florence-2-base", "-t", "detect") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["ball  box 0.100,0.200,0.500,0.600", "kite  point 0.250,0.750  score 0.50"]


def test_json_is_one_line_an_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeBackend(), image, image, "-m", "blip-large", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["image"] for one in lines] == [str(image)] * 2
    assert lines[0]["choices"][0]["message"]["content"] == "a red square"


def test_a_prompt_needs_no_image(capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend()
    assert run(backend, "-m", "blip-large", "-p", "What is a poodle?") in (0, ask.BAD_INPUT)
    assert capsys.readouterr().err == "" or not backend.asked  # models without such questions refuse it


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("-m", "nobody"), ask.BAD_INPUT, "nobody"),
        (("-m", "florence-2-base", "--max-tokens", "0"), ask.BAD_INPUT, "max_tokens"),
    ],
)
def test_what_the_router_refuses_is_said_in_its_words(
    arguments: tuple[str, ...], status: int, words: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(FakeBackend(), image, *arguments) == status
    captured = capsys.readouterr()
    assert f"error: {image}: " in captured.err
    assert words in captured.err
    assert captured.out == ""


def test_an_overloaded_router_says_when_to_come_again(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = Overloaded("All places are taken.")
    full.retry_after_s = 7
    assert run(FakeBackend([full]), image, "-m", "blip-large", "--json") == ask.FAILED
    captured = capsys.readouterr()
    assert "Try again in 7 s." in captured.err
    assert json.loads(captured.out)["error"]["code"] == "overloaded"


def test_a_file_that_cannot_be_read_costs_only_its_own_answer(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = image.with_name("absent.png")
    assert run(FakeBackend(), absent, image, "-m", "blip-large") == ask.BAD_INPUT
    captured = capsys.readouterr()
    assert f"error: {absent}: cannot be read" in captured.err
    assert f"{image}: a red square" in captured.out


def test_nobody_listens(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main([str(image), "-m", "blip-large", "--url", "http://127.0.0.1:1"]) == ask.FAILED
    assert "gigarouter serve" in capsys.readouterr().err


def test_another_program_answers(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ask.parser().parse_args([str(image), "-m", "blip-large"])
    page = httpx2.MockTransport(lambda _: httpx2.Response(404, text="<html>"))
    assert asyncio.run(ask.ask_all(options, page)) == ask.FAILED
    assert "is not gigarouter" in capsys.readouterr().err


def test_the_key_is_sent_and_stands_in_no_option(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIGAROUTER_API_KEY", "secret")
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json={"choices": [{"message": {"content": "a"}}]})

    options = ask.parser().parse_args([str(image), "-m", "blip-large"])
    assert asyncio.run(ask.ask_all(options, httpx2.MockTransport(answer))) == 0
    assert sent[0].headers["authorization"] == "Bearer secret"
    assert "--key" not in ask.parser().format_help()


def test_models_that_are_compared_stand_beside_their_answers(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = ("--also", "blip-large", "--also", "florence-2-base")
    assert run(FakeBackend(), image, "-m", "compare", *compared, "-t", "caption") == 0
    assert capsys.readouterr().out == "blip-large: a red square\nflorence-2-base: a red square\n"


def test_a_dry_run_says_who_would_be_asked(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend()
    assert run(backend, image, "-m", "auto", "--prefer", "good", "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["chosen"] == "florence-2-base"
    assert backend.asked == []


def test_what_is_asked_about_objects_stands_below_them(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend(script(geometry(BALL)))
    then = ("--then", "florence-2-base:ground:a ball", "--crop", 1.5)
    assert run(backend, image, "-m", "florence-2-base", "-t", "detect", *then) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ball  box 0.100,0.200,0.500,0.600"
    assert lines[1].startswith("  ball  box 0.")
    _, request = backend.asked[1]
    assert request.task is not None
    assert (request.task.name, request.task.text) == ("ground", "a ball")
    assert request.crop is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "blip-large"),
        ("a.png", "-m", "blip-large", "--label", "dog"),
        ("a.png",),
        ("a.png", "-m", "blip-large", "--then", "blip-large"),
        ("a.png", "-m", "blip-large", "--then", "blip-large:caption"),
        ("a.png", "-m", "blip-large", "-t", "caption", "--crop", "2"),
        ("a.png", "-m", "blip-large", "--url", "localhost:8000"),
        ("a.png", "-m", "blip-large", "--url", "http://"),
        ("a.png", "-m", "blip-large", "--url", "http://[::1"),
        ("a.png", "-m", "blip-large", "--timeout", "0"),
        ("a.png", "-m", "blip-large", "--timeout", "nan"),
        ("a.png", "-m", "blip-large", "--timeout", "soon"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        ask.main(arguments)
    assert ended.value.code == ask.BAD_INPUT
