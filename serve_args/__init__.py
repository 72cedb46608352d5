"""The ``args`` of a Serve application, read with a pydantic model into one frozen object.

The router and the models' deployments both read theirs with :func:`parse_args`, so that a wrong setting gets the same
kind of message from both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from vlm.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)

_RULES: Mapping[str, str] = {
    "missing": "is missing",
    "string_type": "must be text; in YAML, put it in quotes",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping of settings",
    "dataclass_type": "must be a mapping of settings",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
}
"""What a value must be, by pydantic's type of error; ``{...}`` is filled from the error's context."""

BRANCH = "<"
"""What the tag of a union's branch begins with (``pydantic.Tag``): messages leave it out of the path."""

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # of a model, and of a nested dataclass


def parse_args(kind: type[Settings], args: Mapping[str, Any]) -> Settings:
    """Read the ``args`` of a Serve application, or any mapping that came from YAML.

    They are validated as JSON, because only there does pydantic's strict mode take a list for a tuple and a mapping for
    a dataclass, while it goes on refusing "8" for 8.

    Raises:
        ConfigError: Some keys are unknown or missing, or have impossible values; the message has a sentence on each.
    """
    try:
        return kind.model_validate_json(_as_json(args))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError(" ".join(_sentence(kind, fault) for fault in faults), _dotted(faults[0]["loc"])) from None


def _as_json(args: Mapping[str, Any]) -> str:
    """``args`` as JSON; what only YAML knows, such as a date, as text."""
    try:
        return json.dumps(args, default=str)
    except TypeError:  # default is for values alone
        raise ConfigError("args has a key that is not text; in YAML, put it in quotes.") from None
    except ValueError:
        raise ConfigError("args contains itself; remove the YAML alias that points back.") from None


def _sentence(kind: type[BaseModel], fault: ErrorDetails) -> str:
    path = _dotted(fault["loc"]) or "args"
    if fault["type"] in _UNKNOWN_KEY:
        return _unknown_key(kind, fault["loc"])
    if fault["type"] == "value_error":  # raised by a validator of our own
        return f"{path} {fault['ctx']['error']}."
    rule = _RULES.get(fault["type"])
    return f"{path} {rule.format_map(fault.get('ctx', {}))}." if rule else f"{path} is not valid: {fault['msg']}."


def _unknown_key(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    section, key = location[:-1], str(location[-1])
    known = _keys(kind, section)
    paths = {path.rpartition(".")[2]: path for path in _all_paths(kind)}
    paths |= {name: _dotted((*section, name)) for name in known}  # the section's own keys come first
    near = get_close_matches(key, paths, 1)
    hint = f"; write {paths[key]}." if key in paths else f"; did you mean {paths[near[0]]}?" if near else "."
    where = f"Known keys of {_dotted(section)}" if section else "Known keys"
    return f"{_dotted(location)} is not a known setting{hint} {where}: {', '.join(known)}."


def _all_paths(kind: type[BaseModel]) -> Iterator[str]:
    for name in _keys(kind, ()):
        yield name
        yield from (f"{name}.{inner}" for inner in _keys(kind, (name,)))


def _keys(kind: Any, section: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys of one section, such as ``("engine",)``; the top level is ``()``."""
    for step in section:
        kind = _inside(kind, step)
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return tuple(kind.model_fields)
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else ()


def _inside(kind: Any, step: int | str) -> Any:
    """The type of what stands at ``step`` of a value of type ``kind``; None where that is not known."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _inside(inner[0], step)
    if origin in (Union, UnionType):
        some = [one for one in inner if one is not NoneType]
        return _inside(some[0], step) if len(some) == 1 else next((one for one in some if _is_branch(one, step)), None)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields[str(step)].annotation
    if not (isinstance(origin, type) and inner):
        return None
    return inner[-1] if issubclass(origin, Mapping) else inner[0]  # of a list or tuple


def _is_branch(kind: Any, step: int | str) -> bool:
    return any(isinstance(one, Tag) and one.tag == step for one in getattr(kind, "__metadata__", ()))


def _dotted(location: tuple[int | str, ...]) -> str:
    """``("engine", "max_batch")`` as ``engine.max_batch``; an index into a list as ``names[0]``."""
    if location[-1:] == ("[key]",):  # pydantic's mark of a fault in the key itself
        return f"the key {location[-2]!r} of {_dotted(location[:-2])}"
    own = (step for step in location if not str(step).startswith(BRANCH))
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in own)
    return "".join(steps).removeprefix(".")
