"""The Serve configs, checked key by key, because Ray ignores unknown keys silently."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY, Mock, call

import pytest
import yaml

import deployments.app
import router.app
from deployments.check import check
from deployments.check_args import READERS
from deployments.check_schema import inner_schema
from deployments.config import DECODE_PROCESSES, ModelConfig
from deployments.replica import Replica
from router.config import RouterConfig
from serve_args.cluster_environment import own
from vlm.engine.config import EngineConfig
from vlm.engine.gpu_share import CONTEXT_BYTES, GIB, Needs, Share
from vlm.errors import ConfigError
from vlm.models.cards import cards
from vlm.types import ModelInfo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, while it is imported
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import DeploymentSchema

pytestmark = pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")  # not replaced yet

ROOT = Path(__file__).parents[2]
CONFIGS = ("serve_config.yaml", "serve_config.local.yaml")


def read(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_no_faults(name: str) -> None:
    config = read(name)
    assert check(config) == []
    assert {one["import_path"] for one in config["applications"]} == READERS.keys()


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ((), "proxy_locations"),
        (("http_options",), "prot"),
        (("logging_config",), "log_levle"),
        (("applications", 1), "route_prefixes"),
        (("applications", 1, "args"), "revison"),
        (("applications", 1, "args", "engine"), "cache_byte"),
        (("applications", 0, "args"), "request_timeout"),
        (("applications", 1, "deployments", 0), "max_surge_percentage"),
        (("applications", 1, "deployments", 0, "autoscaling_config"), "min_replica"),
        (("applications", 1, "deployments", 0, "ray_actor_options"), "num_gpu"),
    ],
)
def test_lint_finds_a_typo_anywhere(section: tuple[str | int, ...], key: str) -> None:
    config = read("serve_config.yaml")
    here: Any = config
    for step in section:
        here = here[step]
    here[key] = 1
    assert any(key in str(problem) for problem in check(config))


def test_lint_knows_the_fields_of_autoscaling() -> None:
    """They stand in a union with a plain dict, which would let anything pass."""
    assert inner_schema(DeploymentSchema.model_fields["autoscaling_config"].annotation) is AutoscalingConfig


def test_lint_finds_a_wrong_deployment_name() -> None:
    config = read("serve_config.yaml")
    config["applications"][1]["deployments"][0]["name"] = "Model"
    assert any(
        "deployments.Model: there is only one deployment, and its name is Replica." in str(one) for one in check(config)
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_models_are_reached_through_the_router_alone_by_a_name_that_has_a_card(name: str) -> None:
    router, *models = read(name)["applications"]
    assert (router["name"], router["route_prefix"]) == ("router", "/")
    assert [model["route_prefix"] for model in models] == [None] * len(models)
    assert {model["name"] for model in models} <= cards().keys()
    assert router["args"]["required_models"] == [model["name"] for model in models]


def test_production_pins_the_checkpoint_that_the_card_names() -> None:
    for model in read("serve_config.yaml")["applications"][1:]:
        args = ModelConfig.from_args(model["args"])
        assert args.checkpoint == cards()[model["name"]].hugging_face_id
        assert re.fullmatch("[0-9a-f]{40}", args.revision or "")


def test_one_card_holds_one_replica_of_every_model_and_a_new_version_of_each() -> None:
    shares = [model["deployments"][0]["ray_actor_options"]["num_gpus"] for model in gpu_models()]
    assert 2 * sum(shares) <= 1


CARD_GIB = 79
ROW = re.compile(r"^#   (\S+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", re.MULTILINE)


def test_each_replica_fits_into_its_share_of_the_card_that_the_comment_speaks_of() -> None:
    text = (ROOT / "serve_config.yaml").read_text(encoding="utf-8")
    assert f"# {CARD_GIB}. It holds all models twice" in text
    rows = {name: [float(number) for number in numbers] for name, *numbers in ROW.findall(text)}
    assert rows.keys() == {model["name"] for model in gpu_models()}
    for model in gpu_models():
        weights, cache, workspace, images, cuda, total = rows[model["name"]]
        assert weights + cache + workspace + images + cuda == pytest.approx(total, abs=0.06)
        engine = ModelConfig.from_args(model["args"]).engine
        sizes = [engine.cache_bytes, engine.workspace_bytes, engine.encoder_cache_bytes]
        assert [size / GIB for size in sizes] == [cache, workspace, images]
        needs = Needs(int(weights * GIB), engine.cache_bytes, engine.encoder_cache_bytes, engine.workspace_bytes)
        Share(CARD_GIB * GIB, model["deployments"][0]["ray_actor_options"]["num_gpus"]).require(needs)
        assert cuda == pytest.approx(CONTEXT_BYTES / GIB, abs=0.01)


def gpu_models() -> list[dict[str, Any]]:
    return [model for model in read("serve_config.yaml")["applications"] if model["name"] != "router"]


def test_every_model_that_has_a_card_is_served_with_its_miniature_and_with_its_published_weights() -> None:
    local, production = (read(name)["applications"][1:] for name in reversed(CONFIGS))
    assert [model["name"] for model in local] == sorted(cards()) == sorted(model["name"] for model in production)
    assert [model["args"]["checkpoint"] for model in local] == [f"miniatures/{name}" for name in sorted(cards())]


def test_local_system_fits_on_one_core_twice_and_listens_on_the_loopback_only() -> None:
    config = read("serve_config.local.yaml")
    cpus = [application["deployments"][0]["ray_actor_options"]["num_cpus"] for application in config["applications"]]
    assert 2 * sum(cpus) == pytest.approx(1.0)  # an update starts a second replica before the first one stops
    assert config["http_options"]["host"] == "127.0.0.1"


def test_local_checkpoints_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in read("serve_config.local.yaml")["applications"][1:]:
        assert Path(ModelConfig.from_args(model["args"]).source) == ROOT / model["args"]["checkpoint"]


ENGINE_KEYS = ", ".join(EngineConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"checkpont": "x"}, "checkpont is not a known setting; did you mean checkpoint?"),
        (
            {"checkpoint": "x", "engine": {"max_bacth": 1}},
            "engine.max_bacth is not a known setting; did you mean engine.max_batch? "
            f"Known keys of engine: {ENGINE_KEYS}.",
        ),
        (
            {"checkpoint": "x", "max_batch": 1},
            "max_batch is not a known setting; write engine.max_batch. "
            "Known keys: checkpoint, revision, dtype, device, threads, weights_cache, weights_cache_bytes, engine, ",
        ),
        ({}, "checkpoint is missing."),
        ({"checkpoint": ""}, "checkpoint must not be empty."),
        ({"checkpoint": 1}, "checkpoint must be text; in YAML, put it in quotes."),
        ({"checkpoint": "x", "revision": 7}, "revision must be text; in YAML, put it in quotes."),
        ({"checkpoint": "x", "threads": -1}, "threads must be at least 0."),
        ({"checkpoint": "x", "engine": None}, "engine must be a mapping of settings."),
        ({"checkpoint": "x", "engine": {"max_batch": "8"}}, "engine.max_batch must be a whole number."),
        ({"checkpoint": "x", "engine": {"max_batch": True}}, "engine.max_batch must be a whole number."),
        ({"checkpoint": "x", "engine": {"max_batch": 0}}, "engine.max_batch must be at least 1."),
        ({"checkpoint": "x", "engine": {"max_waiting": -1}}, "engine.max_waiting must be at least 0."),
    ],
)
def test_bad_model_settings_are_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_args(args)
    assert message in caught.value.message


def test_model_settings_default_to_the_engine_s_but_images_are_decoded_in_processes() -> None:
    assert ModelConfig.from_args({"checkpoint": "x"}).engine == EngineConfig(decode_processes=DECODE_PROCESSES)
    assert ModelConfig.from_args({"checkpoint": "x", "engine": {"decode_processes": 0}}).engine == EngineConfig()
    assert ModelConfig.from_args({"checkpoint": "x", "engine": {}}) == ModelConfig(checkpoint="x")


NOT_DEFAULT: Mapping[str, Any] = {name: 3 + index for index, name in enumerate(EngineConfig.__dataclass_fields__)}


def test_every_setting_of_a_replica_reaches_the_loader_and_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    args = {"checkpoint": "org/name", "revision": "a" * 40, "dtype": "float16", "device": "cuda:1", "threads": 3}
    cache = {"weights_cache": "/var/cache/weights", "weights_cache_bytes": 2**30}
    config = ModelConfig.from_args({**args, **cache, "engine": dict(NOT_DEFAULT)})
    engine, loaded, threads = Mock(), Mock(), Mock()
    load, start = Mock(return_value=loaded), Mock(return_value=engine)
    info = Mock(return_value=ModelInfo("blip", "/path/on/this/machine", None, 1, "float16", "cuda:1"))
    monkeypatch.setattr("torch.set_num_threads", threads)
    monkeypatch.setattr("vlm.loading.load", load)
    monkeypatch.setattr("vlm.loading.info", info)
    monkeypatch.setattr("vlm.engine.engine.Engine", start)
    replica = Replica(config)
    options = {"revision": "a" * 40, "dtype": "float16", "device": "cuda:1", "report": ANY, "admit": None, **cache}
    assert load.call_args_list == [call("org/name", **options)]
    assert threads.call_args_list == [call(3)]
    assert start.call_args_list == [call(loaded, EngineConfig(**NOT_DEFAULT))]
    assert engine.start.call_args_list == [call()]
    described = asyncio.run(replica.describe())
    assert (described.checkpoint, described.slots, described.rows) == ("org/name", engine.slots, engine.rows)


def test_no_setting_of_the_test_above_is_the_default() -> None:
    default = EngineConfig()
    assert all(getattr(default, name) != value for name, value in NOT_DEFAULT.items())
    read_engine = ModelConfig.from_args({"checkpoint": "x", "engine": dict(NOT_DEFAULT)}).engine
    assert all(getattr(read_engine, name) == value for name, value in NOT_DEFAULT.items())


def test_serve_lets_more_requests_through_than_an_engine_holds() -> None:
    """Beyond ``max_ongoing_requests`` Serve lets them wait; the engine is to refuse them."""
    application = deployments.app.build({"checkpoint": "x", "engine": {"max_batch": 500, "max_waiting": 700}})
    deployment = application._bound_deployment
    assert deployment.name == "Replica"
    assert deployment.max_ongoing_requests >= 500 + 700 + 16
    engine = EngineConfig(max_batch=500, max_waiting=700, decode_processes=DECODE_PROCESSES)
    assert deployment.init_args == (ModelConfig(checkpoint="x", engine=engine), own())


def test_the_router_holds_as_many_requests_as_several_engines() -> None:
    deployment = router.app.build({"max_prompt_chars": 7})._bound_deployment
    assert deployment.name == "Router"
    assert deployment.max_ongoing_requests > 2 * EngineConfig().capacity
    assert deployment.init_args == (RouterConfig(max_prompt_chars=7), own())


def test_a_config_is_read_without_torch_and_without_ray() -> None:
    check = "assert not {'torch', 'ray', 'transformers', 'numpy'} & set(sys.modules), 'too much'"
    subprocess.run([sys.executable, "-c", f"import sys, deployments.config; {check}"], check=True, cwd=ROOT)


def test_a_checkpoint_in_the_working_directory_comes_before_the_repositorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "miniatures" / "blip-large"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ModelConfig(checkpoint="miniatures/blip-large").source == str(folder)
    assert ModelConfig(checkpoint="org/name").source == "org/name"


def test_a_folder_never_stands_in_for_a_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one in the working directory nor one beside the package."""
    monkeypatch.chdir(tmp_path)
    commit = "a" * 40
    assert ModelConfig(checkpoint="organisation/name", revision=commit).source == "organisation/name"
    (tmp_path / "organisation" / "name").mkdir(parents=True)
    for name, folder in (("organisation/name", tmp_path), ("miniatures/blip-large", ROOT)):
        with pytest.raises(ConfigError, match="leave out revision") as caught:
            _ = ModelConfig(checkpoint=name, revision=commit).source
        assert caught.value.param == "revision"
        assert str(folder / name) in caught.value.message
        assert Path(ModelConfig(checkpoint=name).source) == folder / name
