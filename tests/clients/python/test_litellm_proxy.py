"""LiteLLM's proxy before the system, asked by OpenAI's own client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("litellm.proxy.proxy_cli")

from tests.clients.python import world

KEY = "sk-the-tests-of-gigarouter-are-the-only-users-of-this-proxy"
START_TIMEOUT_S = 180.0
COOLDOWN_S = 5  # LiteLLM's default


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def entry(name: str, model: str, url: str, **settings: Any) -> dict[str, Any]:
    params = {"model": f"openai/{model}", "api_base": url, "api_key": "any", **settings}
    return {"model_name": name, "litellm_params": params}


@pytest.fixture(scope="module")
def proxy(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A proxy with an entry for each model, one for a model that is not served, and one for any name."""
    folder = tmp_path_factory.mktemp("proxy")
    names = {"blip": "blip-large", "florence": "florence-2-base", "moon": "moondream-2", "absent": "gpt-4o"}
    entries = [entry(name, model, url) for name, model in names.items()]
    entries.append(entry("any/*", "*", url, cooldown_time=0))
    (folder / "config.yaml").write_text(json.dumps({"model_list": entries}), "utf-8")  # JSON is YAML
    port = free_port()
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(folder / "config.yaml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "LITELLM_MASTER_KEY": KEY}, cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}", folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(f"{address}/health/liveliness", timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline, "the proxy is not ready"
            time.sleep(0.5)
        else:
            return


@pytest.fixture
def client(proxy: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=proxy, api_key=KEY, max_retries=0, timeout=60) as sdk:
        yield sdk


def ask(client: Any, model: str, *messages: Any, **fields: Any) -> Any:
    return client.chat.completions.create(model=model, messages=list(messages) or [world.user()], **fields)


def content(answer: Any) -> str:
    return str(answer.choices[0].message.content)


@pytest.mark.timeout(START_TIMEOUT_S + 60)
def test_a_caption(client: Any, image_url: str) -> None:
    assert content(ask(client, "blip")) == world.CAPTION
    assert content(ask(client, "any/blip-large")) == world.CAPTION
    assert content(ask(client, "blip", world.user(url=image_url))) == world.CAPTION


def test_a_stream(client: Any) -> None:
    chunks = list(ask(client, "blip", stream=True, stream_options={"include_usage": True}))
    words = (choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert "".join(words) == world.CAPTION
    assert chunks[-1].usage.completion_tokens > 0


def test_objects(client: Any) -> None:
    message = ask(client, "florence", extra_body={"task": "detect"}).choices[0].message
    assert [one["label"] for one in json.loads(message.content)["objects"]] == ["circle", "square"]
    kept = message.provider_specific_fields["grounding"]["objects"]
    assert [one["label"] for one in kept] == ["circle", "square"]


def test_a_mistake_concerns_nobody_else(client: Any) -> None:
    for fields in ({"temperature": 3}, {"messages": [world.user(url=world.BROKEN_IMAGE)]}):
        asked = {"model": "blip", "messages": [world.user()], **fields}
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**asked)
    assert content(ask(client, "blip")) == world.CAPTION


def test_an_unknown_model_is_one_to_the_proxys_client(client: Any) -> None:
    """After a 404 the proxy rests the entry for some seconds, but no other one."""
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        ask(client, "absent")
    with pytest.raises(openai.RateLimitError, match="cooldown"):
        ask(client, "absent")
    assert content(ask(client, "blip")) == world.CAPTION


def test_a_route_that_does_not_exist_rests_no_model(client: Any) -> None:
    """LiteLLM takes every 404 for a fault of the deployment, so an unknown route is not one."""
    with pytest.raises(openai.BadRequestError, match="Unknown URL"):
        client.embeddings.create(model="moon", input="a red circle")
    assert content(ask(client, "moon", world.user(world.QUESTION))) == world.ANSWER


def test_an_entry_for_all_models_that_never_rests(client: Any) -> None:
    """The entry that docs/clients.md shows."""
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        ask(client, "any/gpt-4o")
    assert content(ask(client, "any/blip-large")) == world.CAPTION


def test_responses(client: Any) -> None:
    image = {"type": "input_image", "image_url": world.data_url()}
    asked = [{"role": "user", "content": [{"type": "input_text", "text": world.QUESTION}, image]}]
    assert client.responses.create(model="moon", input=asked).output_text == world.ANSWER
    events = list(client.responses.create(model="moon", input=asked, stream=True))
    assert events[-1].response.output_text == world.ANSWER


def test_anthropics_messages_by_way_of_responses(proxy: str) -> None:
    """The proxy offers Anthropic's API for every model, and asks us by the Responses API."""
    source = {"type": "base64", "media_type": "image/png", "data": world.data_url().partition(",")[2]}
    parts = [{"type": "text", "text": world.QUESTION}, {"type": "image", "source": source}]
    body = {"model": "moon", "max_tokens": 50, "messages": [{"role": "user", "content": parts}]}
    request = urllib.request.Request(
        f"{proxy}/messages", json.dumps(body).encode(), {"x-api-key": KEY, "content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["content"][0]["text"] == world.ANSWER
