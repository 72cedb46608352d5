"""The systems that are compared: how each is started, what it is asked, and where the text is in its answer."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.http.client import Sent
from benchmarks.http.images import NewImage
from benchmarks.http.servers import ROOT, Start
from benchmarks.peers.captions import Setting

OURS, STREAMED, LITSERVE, RAY_SERVE, DIRECT = "ours", "ours, streamed", "LitServe", "Ray Serve", "transformers"
CONFIG = ROOT / "serve_config.local.yaml"
IMAGE = b"IMAGE"
"""Stands for the base64 of an image in the body of a request."""


@dataclass(frozen=True, slots=True)
class Format:
    """What a system is asked, and how its answers are read.

    Attributes:
        path: Where requests go.
        body: The JSON of a request, with :data:`IMAGE` for the image.
        text: The generated text in the body of an answer.
        key: The API key that it is asked with; by default, it is asked without.
    """

    path: str
    body: bytes
    text: Callable[[bytes], str]
    key: str = ""

    def requests(self, images: Iterable[NewImage], port: int) -> Iterator[Sent]:
        """A request for each image."""
        before, after = self.body.split(IMAGE)
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        for image in images:
            length = len(before) + len(image.head) + len(image.tail) + len(after)
            head = (
                f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {length}\r\n{key}\r\n"
            )
            yield Sent((head.encode() + before + image.head, image.tail, after), image.number)


# Ours


def chat(model: str, tokens: int, *, streaming: bool = False, more: Mapping[str, Any] | None = None) -> Format:
    """A chat request, greedy, whose answer has the model's own output for the comparison with transformers."""
    url = {"url": f"data:image/jpeg;base64,{IMAGE.decode()}"}
    body = {
        "model": model, "max_tokens": tokens, "num_beams": 1, "temperature": 0, "stream": streaming,
        "include_raw": True, **(more or {}),
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}],
    }  # fmt: skip
    return Format("/v1/chat/completions", json.dumps(body).encode(), raw_of_stream if streaming else raw_of)


def raw_of(body: bytes) -> str:
    """The model's own output in a chat answer."""
    return str(json.loads(body)["choices"][0]["message"]["grounding"]["raw"])


def raw_of_stream(body: bytes) -> str:
    """The same of an answer that was streamed: it is in the event that ends the choice. "" if there is none."""
    lines = (line for line in body.splitlines() if line.startswith(b"data: {"))
    deltas = (choice["delta"] for line in lines for choice in json.loads(line[len(b"data: ") :])["choices"])
    return next((str(delta["grounding"]["raw"]) for delta in deltas if "grounding" in delta), "")


def start_ours(model: str, port: int, folder: Path, *, waiting: int | None = None, replicas: int = 1) -> Start:
    """What ``make serve`` runs, with one model."""
    return start_with(config_of(model, waiting=waiting, replicas=replicas), port, folder)


def start_with(config: Mapping[str, Any], port: int, folder: Path) -> Start:
    """What ``make serve`` runs, with this config."""
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    command = [sys.executable, "-m", "deployments.local", "--port", str(port), "--config", str(path)]
    return Start(OURS, command, port, "/readyz", {})


def config_of(model: str, *, waiting: int | None = None, replicas: int = 1) -> dict[str, Any]:
    """The config of ``make serve`` with one model alone, as the peers have one.

    Args:
        waiting: How many requests may wait for the engine, where it is not what the config has: the peers' queues have
            no limit.
    """
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text("utf-8"))
    router, found = (_application(config, name) for name in ("router", model))
    router["args"]["required_models"] = [model]
    if waiting is not None:
        found["args"]["engine"]["max_waiting"] = waiting
        router["args"]["places_per_replica"] = waiting  # the router refuses nobody either; without, it asks the engine
    found["deployments"][0]["num_replicas"] = replicas
    return config | {"applications": [router, found]}


def _application(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in config["applications"] if one["name"] == name]
    if not found:
        raise SystemExit(f"error: {CONFIG.name} has no model {name!r}")
    return found[0]


# The peers


def plain() -> Format:
    """What the peers are asked."""
    return Format(
        "/predict", json.dumps({"image": IMAGE.decode()}).encode(), lambda body: str(json.loads(body)["text"])
    )


def start_litserve(setting: Setting, port: int, python: Path) -> Start:
    """LitServe, by the interpreter of the environment that has it."""
    command = [str(python), "-m", "benchmarks.peers.lit", "--port", str(port), *setting.options()]
    return Start(LITSERVE, command, port, "/health", {})


def start_ray_serve(setting: Setting, port: int, folder: Path) -> Start:
    """Ray Serve, on a cluster of its own that nobody else can reach."""
    temp = folder / "r"
    temp.mkdir()
    command = [sys.executable, "-m", "benchmarks.peers.ray_serve", "--port", str(port), "--temp", str(temp)]
    environment = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that Ray listens on the loopback alone
    }  # fmt: skip
    return Start(RAY_SERVE, [*command, *setting.options()], port, "/-/healthz", environment)
