"""Simon Willison's ``llm`` on the command line, set up by its file of additional models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("llm")

from tests.clients.python import world

Llm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def llm(url: str, tmp_path: Path) -> Llm:
    models = ("blip-large", "moondream-2", "florence-2-base", "florence-2-base:detect", "gpt-4o-absent")
    entries = [
        {"model_id": f"gr-{name}", "model_name": name, "api_base": url, "vision": True, "supports_schema": True}
        for name in models
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(entries), "utf-8")  # JSON is YAML
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "llm", *arguments]
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=90
        )

    return run


def ask(llm: Llm, model: str, *arguments: str) -> str:
    done = llm("prompt", "-m", f"gr-{model}", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("stream", [[], ["--no-stream"]])
def test_a_caption(llm: Llm, stream: list[str]) -> None:
    assert ask(llm, "blip-large", "-a", str(world.IMAGE), "Describe this image", *stream) == world.CAPTION


def test_an_image_by_http(llm: Llm, image_url: str) -> None:
    assert ask(llm, "blip-large", "--at", image_url, "image/png", "Describe this image") == world.CAPTION


def test_a_question_and_then_another_image(llm: Llm) -> None:
    assert ask(llm, "moondream-2", "-a", str(world.IMAGE), world.QUESTION) == world.ANSWER
    assert ask(llm, "moondream-2", "-c", "-a", str(world.OTHER_IMAGE), world.QUESTION) == world.OTHER_ANSWER


def test_objects_by_a_native_prompt_and_by_the_models_name(llm: Llm) -> None:
    for arguments in (["florence-2-base", "<OD>"], ["florence-2-base:detect", ""]):
        found = json.loads(ask(llm, arguments[0], "-a", str(world.IMAGE), arguments[1]))
        assert [one["label"] for one in found["objects"]] == ["circle", "square"]


def test_a_schema(llm: Llm) -> None:
    assert json.loads(ask(llm, "blip-large", "-a", str(world.IMAGE), "Describe it", "--schema", "text str")) == {
        "text": world.CAPTION
    }


def test_an_unknown_model(llm: Llm) -> None:
    done = llm("prompt", "-m", "gr-gpt-4o-absent", "-a", str(world.IMAGE), "Describe it")
    assert done.returncode == 1
    assert "gpt-4o-absent" in done.stderr
    assert "Traceback" not in done.stderr
