"""docs/autoscaling.md states the settings and defaults of the code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from deployments.autoscaling import ScalingConfig
from deployments.scaling_policy import mistakes
from router.config import RouterConfig

PAGE = (Path(__file__).parents[2] / "docs/autoscaling.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+)(?: s)? \|", PAGE, re.MULTILINE))


def test_every_setting_of_the_policy_is_there_with_its_default() -> None:
    for name, field in ScalingConfig.model_fields.items():
        assert float(ROWS[name]) == field.default, name


def test_the_settings_of_the_router_are_there_with_their_defaults() -> None:
    for name in ("max_held", "cold_start_s"):
        assert float(ROWS[name]) == RouterConfig.model_fields[name].default


def test_the_example_can_be_deployed() -> None:
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])["autoscaling_config"]
    assert list(mistakes(example)) == []
    assert "policy_kwargs" in example["policy"]
