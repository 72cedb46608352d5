"""The image that `make image-check` has built: what its layers hold, and that it answers as its user.

Skipped elsewhere: building takes minutes and fetches half a gigabyte.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

from tests.deployments.client import Question
from tests.k8s.container import Container, entering, running
from tests.k8s.layers import Entry, Layers
from tests.k8s.objects import K8S, ROOT
from tools.lock import FOLDER, split

pytestmark = pytest.mark.skipif(
    "IMAGE_LAYERS" not in os.environ, reason="no image was built; `make image-check` does it"
)

VENV = "/opt/venv/"
PRODUCT = "/opt/gigarouter/"
BUILD_TOOLS = re.compile(
    r"/s?bin/(.*-linux-gnu-)?(gcc|g\+\+|cc|c\+\+|clang|ld|as|make|cmake|ninja|nvcc|rustc|cargo|go|npm|node|git|protoc)(-?[\d.]+)?$"
)
LEFT_BEHIND = re.compile(
    r"/(\.git|\.ssh|\.aws|\.docker|\.netrc|\.pypirc|\.env|\.bash_history|\.cache|\.ray|auth_token|id_[a-z0-9]+)$"
    r"|^/var/(cache/apt/archives|lib/apt/lists)/.+|^/(build|opt/sbom)(/|$)|^/tmp/.+|^/root/.+/"
)
WEIGHTS = re.compile(r"\.(safetensors|gguf|onnx|pt|pth|ckpt|h5|msgpack)$")
SMALL = 4096
"""Bytes below which a file is no weights: a *.pth may be a line for Python's path."""
SECRET = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}"
    rb"|\bhf_[A-Za-z0-9]{30,}\b|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9]{40,}\b"
)
VARIABLES = {
    "PATH", "PYTHONUNBUFFERED", "HF_HOME", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
}  # fmt: skip
OF_PYTHON_IMAGES = {"LANG", "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256"}
"""Variables of the base python:slim; the key is one that signatures are checked with."""

START_S = 300
"""Seconds for the start of everything on a busy machine."""


@cache
def image() -> Layers:
    return Layers(Path(os.environ["IMAGE_LAYERS"]))


def tree() -> Path:
    return Path(os.environ["IMAGE_TREE"])


def found(wrong: object) -> list[str]:
    """The paths in all layers for which this is true."""
    return sorted({entry.name for entry in image().entries if wrong(entry)})  # type: ignore[operator]


def ours(entry: Entry) -> bool:
    return entry.name.startswith((VENV, PRODUCT))


def test_it_runs_as_the_user_of_the_manifests() -> None:
    assert image().config["config"]["User"] == "1000:1000"


def test_its_variables_are_those_of_the_dockerfile() -> None:
    names = {one.partition("=")[0] for one in image().config["config"]["Env"]}
    assert VARIABLES <= names <= VARIABLES | OF_PYTHON_IMAGES


def test_its_labels_say_what_it_is() -> None:
    labels = image().config["config"]["Labels"]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version is not None
    assert labels["org.opencontainers.image.version"] == version[1]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels.keys() >= {f"org.opencontainers.image.{one}" for one in ("title", "description")}


def test_no_layer_has_a_build_tool() -> None:
    assert found(lambda entry: BUILD_TOOLS.search(entry.name) and not entry.info.isdir()) == []
    assert found(lambda entry: ours(entry) and entry.name.endswith((".h", ".hpp", ".cuh", ".a"))) == []
    assert [path for path in image().final if path.startswith(f"{VENV}bin/") and "pip" in path] == []


def test_no_layer_has_what_was_left_behind() -> None:
    assert found(lambda entry: LEFT_BEHIND.search(entry.name)) == []


def test_no_layer_has_a_secret() -> None:
    assert [entry.name for entry, text in image().texts(2**20) if SECRET.search(text)] == []
    assert not SECRET.search(json.dumps(image().config).encode())


def test_the_only_weights_are_the_miniatures() -> None:
    of_models = found(lambda entry: WEIGHTS.search(entry.name) and entry.info.size > SMALL)
    assert {str(PurePosixPath(one).parent) for one in of_models} == {
        f"{PRODUCT}miniatures/{one.parent.name}" for one in (ROOT / "miniatures").glob("*/*.safetensors")
    }


def test_no_program_gives_more_rights() -> None:
    assert [path for path, entry in image().final.items() if entry.special] == []


def test_nothing_is_for_everyone_to_write_and_the_product_is_nobodys() -> None:
    assert [path for path, entry in image().final.items() if entry.writable_by_others] == []
    assert found(lambda entry: ours(entry) and (entry.info.uid, entry.info.gid) != (0, 0)) == []
    assert found(lambda entry: ours(entry) and not entry.info.issym() and entry.info.mode & 0o022) == []


def test_its_size_is_what_the_page_says() -> None:
    text = (K8S / "README.md").read_text("utf-8")
    stated = re.search(r"takes ([\d.]+) GB on a node and ([\d.]+) GB in a registry", text)
    assert stated is not None
    unpacked = sum(entry.info.size for entry in image().final.values() if entry.info.isfile())
    assert [unpacked / 1e9, image().compressed_bytes / 1e9] == pytest.approx([*map(float, stated.groups())], rel=0.15)


def components() -> dict[str, Any]:
    """What the list of packages has, by name."""
    listed = json.loads((tree() / "opt/gigarouter/sbom.cdx.json").read_text("utf-8"))
    assert listed["bomFormat"] == "CycloneDX"
    assert listed["metadata"]["component"]["name"] == "gigarouter"
    return {canonicalize_name(one["name"]): one for one in listed["components"]}


def installed() -> dict[str, str]:
    """What the environment has, by the names of its folders of metadata."""
    (packages,) = (tree() / "opt/venv/lib").glob("python3.*/site-packages")
    named = (re.fullmatch(r"(.+)-([^-]+)\.dist-info", one.name) for one in packages.glob("*.dist-info"))
    return {canonicalize_name(match[1]): match[2] for match in named if match}


def test_the_list_has_every_package_with_its_version_and_licence() -> None:
    listed, there = components(), installed()
    assert {name: one["version"] for name, one in listed.items()} == {
        name: version for name, version in there.items() if name != "gigarouter"
    }
    assert [name for name, one in listed.items() if not one.get("licenses")] == []
    assert [name for name, one in listed.items() if not one["purl"].startswith(f"pkg:pypi/{name}@")] == []


def test_its_packages_are_those_of_the_lock() -> None:
    locked = split((FOLDER / "run.lock").read_text("utf-8"))
    versions = {name: {entry.split()[0].partition("==")[2] for entry in entries} for name, entries in locked.items()}
    others = {name for name, version in installed().items() if version not in versions.get(name, ())}
    assert {one for one in others if not re.match(r"(nvidia|cuda)-|triton$", one)} == {"torch", "gigarouter"}


def test_its_command_answers_as_its_user_on_a_root_that_nothing_writes_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, running(tree(), image().config["config"], variables(), log) as container:
        ready = wait_until_ready(container, tmp_path / "log")
        assert ready["status"] == "ready"
        answer = container.ask(
            "http://127.0.0.1:8000/v1/chat/completions", Question("moondream-2", "How many shapes?").body()
        )
        assert answer["choices"][0]["message"]["content"] == "two"
        status = (Path("/proc") / str(container.pid) / "status").read_text()
        assert re.search(r"^Uid:\s+1000\s+1000", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        container.stop(timeout=120)


def variables() -> dict[str, str]:
    """Those of a laptop's cluster, whose config is the image's own, and of compose.yaml, but for accounts."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["gigarouter"]
    lines = (K8S / "overlays/kind/transport.env").read_text("utf-8").splitlines()
    transport = dict(line.split("=", 1) for line in lines)
    rays = {name: value for name, value in service["environment"].items() if name.startswith("RAY_")}
    return {**transport, **rays, "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def wait_until_ready(container: Container, log: Path) -> Any:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and container.outside.poll() is None:
        try:
            return container.ask("http://127.0.0.1:8000/readyz")
        except (subprocess.SubprocessError, ValueError):
            time.sleep(2)
    raise AssertionError(log.read_text(errors="replace")[-6000:])


@pytest.mark.parametrize(
    "arguments", [["gigarouter", "--help"], ["ray", "--version"], ["bash", "-c", "command -v python"]]
)
def test_what_the_manifests_call_is_there(arguments: list[str]) -> None:
    """Found by the image's own PATH, as the operator, the Job and the clean-up of Redis need it."""
    environment = image().config["config"]["Env"]
    command = entering(tree(), ["env", "--ignore-environment", *environment, "HOME=/home/ray", *arguments])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
