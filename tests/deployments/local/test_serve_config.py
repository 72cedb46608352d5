"""A Serve config is checked before anything is started, and every fault is one clear line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.local import serve_config
from deployments.local.__main__ import BAD_INPUT, main
from tests.deployments.system import ROOT
from vlm.errors import ConfigError

LOCAL = ROOT / "serve_config.local.yaml"


def written(folder: Path, config: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.fixture
def config() -> Any:
    return yaml.safe_load(LOCAL.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["serve_config.yaml", "serve_config.local.yaml"])
def test_reads_the_configs_of_this_repository(name: str) -> None:
    assert len(serve_config.checked(ROOT / name)["applications"]) == 5


def test_the_word_temporary_becomes_a_folder(tmp_path: Path, config: Any) -> None:
    found = serve_config.with_folder(serve_config.checked(LOCAL), tmp_path / "files")
    assert found["applications"][0]["args"]["files_url"] == str(tmp_path / "files")
    config["applications"][0]["args"]["files_url"] = "s3://bucket/files"
    assert serve_config.with_folder(config, tmp_path)["applications"][0]["args"]["files_url"] == "s3://bucket/files"
    del config["applications"][0]["args"]
    assert "args" not in serve_config.with_folder(config, tmp_path)["applications"][0]


def test_a_renamed_model_that_is_still_required_is_refused(tmp_path: Path, config: Any) -> None:
    config["applications"][1]["name"] = "blip-big"
    path = written(tmp_path, config)
    message = (
        f"{path}: applications.router.args.required_models: names 'blip-large', but there is no application of that "
        "name. Did you mean 'blip-big'? Models in this config: blip-big, florence-2-base, kosmos-2, moondream-2."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        serve_config.checked(path)


def test_wrong_args_of_all_applications_are_reported(tmp_path: Path, config: Any) -> None:
    config["applications"][0]["args"]["request_timeout"] = 5
    config["applications"][1]["args"]["engine"] = {"max_bacth": 16}
    path = written(tmp_path, config)
    with pytest.raises(ConfigError) as caught:
        serve_config.checked(path)
    first, second = caught.value.message.splitlines()
    assert first.startswith(f"{path}: applications.router.args: ")
    assert "request_timeout_s" in first
    assert second.startswith(f"{path}: applications.blip-large.args: engine.max_bacth is not a known setting;")


def test_a_wrong_setting_does_not_hide_a_model_that_is_missing(tmp_path: Path, config: Any) -> None:
    config["applications"][0]["args"]["request_timeout"] = 5
    config["applications"][1]["name"] = "blip-big"
    with pytest.raises(ConfigError) as caught:
        serve_config.checked(written(tmp_path, config))
    first, second = caught.value.message.splitlines()
    assert "request_timeout_s" in first
    assert "required_models: names 'blip-large'" in second


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- a", "must hold a mapping with the key 'applications'"),
        ("", "must hold a mapping with the key 'applications'"),
    ],
)
def test_a_file_that_is_not_a_config(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        serve_config.checked(written(tmp_path, content))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory\.$"):
        serve_config.checked(tmp_path)


@pytest.mark.parametrize("args", ["", "    args:\n", "    args: {}\n"])
def test_args_without_content_are_no_args(tmp_path: Path, args: str) -> None:
    start = "applications:\n  - name: router\n    import_path: router.app:build\n"
    assert len(serve_config.checked(written(tmp_path, start + args))["applications"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"applications": 3},
        {"applications": {"name": "router"}},
        {"applications": [{"name": "router", "import_path": ["router.app:build"]}]},
        {"applications": [1, {"name": "other", "import_path": "other:app", "args": {"x": 1}}]},
    ],
)
def test_a_malformed_config_is_refused_in_words(tmp_path: Path, content: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"applications: none has the import_path router\.app:build"):
        serve_config.checked(written(tmp_path, content))


@pytest.mark.parametrize("deployments", [3, "Router", [1], [None], [["name"]]])
def test_what_is_no_deployment_is_left_for_ray_to_refuse(config: Any, deployments: object) -> None:
    config["applications"][0]["deployments"] = deployments
    config["applications"][1]["import_path"] = ["deployments.app:build"]
    found = serve_config.without_proxy(config, "127.0.0.1", 8000)
    assert found["applications"][0]["deployments"] == deployments
    assert "blip-large" not in serve_config.needing_token(config)


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        ([1], "args must be a mapping of settings."),
        ({"required_models": "blip-large"}, "required_models must be a list."),
        ({"required_models": 3}, "required_models must be a list."),
    ],
)
def test_malformed_args_of_the_router_are_one_fault(tmp_path: Path, args: object, fault: str) -> None:
    path = written(tmp_path, {"applications": [{"name": "router", "import_path": "router.app:build", "args": args}]})
    with pytest.raises(ConfigError) as caught:
        serve_config.checked(path)
    assert str(caught.value) == f"{path}: applications.router.args: {fault}"


def test_a_missing_config_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.yaml")]) == BAD_INPUT
    assert capsys.readouterr().err == f"error: There is no config file {tmp_path / 'none.yaml'}.\n"


def test_make_serve_refuses_what_the_check_finds(
    tmp_path: Path, config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(json.dumps(config))  # without aliases
    config["applications"][1]["args"]["checkpoint"] = "miniatures/blip-larg"
    config["applications"][2]["deployments"][0]["max_ongoing_requests"] = 3
    config["applications"][3]["deployments"][0]["max_surge_percent"] = 0  # only a warning
    path = written(tmp_path, config)
    assert main(["--config", str(path)]) == BAD_INPUT
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {path}: applications.blip-large.args.checkpoint: there is no folder")
    assert second.startswith(f"{path}: applications.florence-2-base.deployments.Replica.max_ongoing_requests: must be")


# Without Serve's proxy


def _system(**router: Any) -> dict[str, Any]:
    return {
        "proxy_location": "HeadOnly",
        "applications": [
            {"name": "router", "import_path": "router.app:build", **router},
            {"name": "blip", "route_prefix": None, "import_path": "deployments.app:build"},
        ],
    }


def test_the_router_listens_itself_where_a_proxy_has_nothing_to_do() -> None:
    given = _system(args={"drop_params": True}, deployments=[{"name": "Router", "num_replicas": 1}])
    changed = serve_config.without_proxy(given, "127.0.0.1", 8001)
    assert changed["proxy_location"] == "Disabled"
    router, blip = changed["applications"]
    assert router["args"] == {"drop_params": True, "listen": "127.0.0.1:8001"}
    assert router["route_prefix"] is None
    assert blip == given["applications"][1]
    assert given == _system(args={"drop_params": True}, deployments=[{"name": "Router", "num_replicas": 1}])


@pytest.mark.parametrize(
    "given",
    [
        _system(deployments=[{"name": "Router", "num_replicas": 2}]),
        _system(deployments=[{"name": "Router", "num_replicas": "auto"}]),
        _system(deployments=[{"name": "Router", "autoscaling_config": {"min_replicas": 1}}]),
        _system(route_prefix=None),
        {"applications": [*_system()["applications"], {"name": "more", "import_path": "my.app:build"}]},
        {"applications": [{"name": "alone", "import_path": "my.app:build"}]},
        {"applications": []},
    ],
    ids=["two routers", "scaled by Serve", "autoscaled", "no route", "another route", "no router", "nothing"],
)
def test_the_proxy_stays_where_it_has_something_to_do(given: dict[str, Any]) -> None:
    assert serve_config.without_proxy(given, "127.0.0.1", 8001) == given


# Without accounts


def test_what_nobody_else_reaches_may_have_no_accounts() -> None:
    given = _system(args={"drop_params": True, "database_url": "environment", "redis_url": "environment"})
    router, blip = serve_config.without_accounts(given)["applications"]
    assert router["args"] == {"drop_params": True, "allow_without_keys": True}
    assert blip == given["applications"][1]
    assert serve_config.without_accounts(_system())["applications"][0]["args"] == {"allow_without_keys": True}
    assert given["applications"][0]["args"]["database_url"] == "environment"
