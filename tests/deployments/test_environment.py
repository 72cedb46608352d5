"""The variables that a cluster's processes need, as a shell and as a file reads them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.environment import main
from router.ingress import CALLBACK, SETTINGS
from serve_args.cluster_environment import CLUSTER, NAMES

CONFIG = str(Path(__file__).parents[2] / "serve_config.yaml")


def test_a_shell_reads_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([CONFIG]) == 0
    script = f"{capsys.readouterr().out}\nenv -0"
    read = subprocess.run(["sh", "-c", script], env={}, stdout=subprocess.PIPE, text=True, check=True).stdout
    values = dict(line.split("=", 1) for line in read.split("\0") if "=" in line)
    assert {name: values[name] for name in CLUSTER} == dict(CLUSTER)
    assert values[CALLBACK] == "router.ingress:middlewares"
    assert json.loads(values[SETTINGS])["request_timeout_s"] == 120


def test_a_file_has_no_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([CONFIG, "--env-file"]) == 0
    values = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert json.loads(values[SETTINGS])["request_timeout_s"] == 120
    assert set(values) <= set(NAMES), "what is printed is also compared"


def test_a_config_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr() == ("", f"error: There is no config file {tmp_path / 'none.yaml'}.\n")


REFUSED: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "applications.router.args: request_timeout is not a known setting": lambda router: router["args"].update(
        request_timeout=5
    ),
    "applications.router.deployments.Router.max_ongoing_request: is not a known key": lambda router: router[
        "deployments"
    ][0].update(max_ongoing_request=9),
    "applications.router.runtime_env.env_vars.RAY_SERVE_ENABLE_HA_PROXY": lambda router: router.update(
        runtime_env={"env_vars": {"RAY_SERVE_ENABLE_HA_PROXY": "0"}}
    ),
}
"""By what is said of it: a mistake of the router's args, one that Ray would ignore, and one that no schema has."""


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_work_has_no_variables(tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str) -> None:
    config = yaml.safe_load(Path(CONFIG).read_text(encoding="utf-8"))
    REFUSED[said](config["applications"][0])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main([str(path)]) == 1
    out, error = capsys.readouterr()
    assert not out
    assert f"{path}: {said}" in error


def test_folders_of_checkpoints_need_not_be_where_the_variables_are_printed(tmp_path: Path) -> None:
    text = Path(CONFIG).with_name("serve_config.local.yaml").read_text(encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("miniatures/", "/on/the/nodes/"), encoding="utf-8")
    assert main([str(path)]) == 0


def test_idle_connections_last_longer_than_the_longest_request() -> None:
    with open(CONFIG, encoding="utf-8") as config:
        assert "request_timeout_s: 120" in config.read()
    for name in ("RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S", "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"):
        assert int(CLUSTER[name]) >= 120 + 10
