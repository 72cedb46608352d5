"""A Serve config against Ray's own schema, strictly: Ray drops unknown keys without a word."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from deployments.check_problem import Problem, deployments_of
from deployments.scaling_policy import POLICY, mistakes
from router.ingress import applications_of
from router.suggest import did_you_mean


def schema_problems(config: Mapping[str, Any]) -> list[Problem]:
    """Unknown keys anywhere, and what Ray refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, while it is imported, and for a setting of autoscaling
        return _problems(config)


def _problems(config: Mapping[str, Any]) -> list[Problem]:
    from ray.serve.schema import ServeDeploySchema

    found = [Problem(place, message) for place, message in unknown_keys(ServeDeploySchema, config, "")]
    found += [
        Problem(place, message) for place, message in _refused(ServeDeploySchema, _without_policies(config), config)
    ]
    for place, deployment in chain.from_iterable(map(deployments_of, applications_of(config))):
        scaling = deployment.get("autoscaling_config")
        if isinstance(scaling, Mapping):  # the schema lets any mapping pass
            path = f"{place}.autoscaling_config"
            found += [Problem(".".join(filter(None, (path, at))), text) for at, text in _of_scaling(scaling)]
    return found


def _without_policies(value: Any) -> Any:
    """The same without the policies of autoscaling, which Ray imports: it would stop at one that is not there."""
    if isinstance(value, list):
        return [_without_policies(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    kept = {key: _without_policies(one) for key, one in value.items()}
    if isinstance(scaling := kept.get("autoscaling_config"), dict):
        scaling.pop("policy", None)
    return kept


def _of_scaling(scaling: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, message) of what Ray refuses in an ``autoscaling_config``, and of what its policy does."""
    from ray._common.utils import import_attr  # as Serve imports it
    from ray.serve.config import AutoscalingConfig

    policy = scaling.get("policy")
    path = policy.get("policy_function", POLICY) if isinstance(policy, Mapping) else POLICY
    try:
        import_attr(str(path))
    except (ImportError, AttributeError, ValueError):
        hint = did_you_mean(str(path), [POLICY])
        yield "policy.policy_function", f"{str(path)!r} cannot be imported.{hint}"
    else:
        yield from _refused(AutoscalingConfig, scaling, {})
        yield from mistakes(scaling)


def unknown_keys(schema: type[BaseModel], value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """(place, message) of each key that ``schema`` and the schemas within it do not have."""
    for key, below in value.items():
        if key not in schema.model_fields:
            hint = did_you_mean(str(key), schema.model_fields)
            yield f"{path}{key}", f"is not a known key, and Ray would ignore it.{hint}"
            continue
        inner = inner_schema(schema.model_fields[key].annotation)
        for index, item in enumerate(below if isinstance(below, list) else [below]):
            if inner is not None and isinstance(item, Mapping):
                step = f".{item.get('name', index)}" if isinstance(below, list) else ""
                yield from unknown_keys(inner, item, f"{path}{key}{step}.")


def inner_schema(annotation: Any) -> type[BaseModel] | None:
    """The model within ``Optional[Union[Dict, Model]]``, ``List[Model]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := inner_schema(part))), None)


def _refused(schema: type[BaseModel], value: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(place, message) of what ``schema`` does not take; places have the names of the applications in ``config``."""
    try:
        schema.model_validate(value)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            message = one["msg"].removeprefix("Value error, ").rstrip(".!")
            yield _place(one["loc"], config), f"{message}."
    except (AttributeError, TypeError):  # from Ray's validators, which take some entries to be mappings
        yield "config", "an entry of a list that must be a mapping is none."


def _place(location: Sequence[int | str], config: Any) -> str:
    """``("applications", 1, "name")`` as ``applications.blip-large.name``."""
    steps, here = [], config
    for step in location:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None
        name = here.get("name") if isinstance(step, int) and isinstance(here, Mapping) else None
        steps.append(str(step if name is None else name))
    return ".".join(steps) or ""
