"""A JSON object as a pydantic model, and the error for the first field that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from router.suggest import did_you_mean
from vlm.errors import InvalidRequest

Json = dict[str, Any]
BodyT = TypeVar("BodyT", bound=BaseModel)

MAX_PATH = 256
"""Characters of a path that a message repeats: keys are the client's."""


MAX_WHOLE = 2**53
"""Beyond it, not every whole number is one that a float can have."""


class Checked(BaseModel):
    """The base of every body: unknown keys are ignored, types are not converted, NaN is refused.

    A number is taken by its value: JSON has one kind of them, and many a client writes the whole number 1 as 1.0.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _take_whole_numbers(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(type(one) is float for one in value.values()):
            return {name: _whole(one) if type(one) is float else one for name, one in value.items()}
        return value


def _whole(number: float) -> float:
    return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE else number


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "is not Unicode") from error
    return text


UnicodeText = Annotated[str, AfterValidator(_encodable)]
"""Text without lone surrogates: JSON can spell them, but no tokenizer can read them."""


def given_one(body: BaseModel, names: Sequence[str], path: str) -> str:
    """The one of the fields ``names`` that ``body``, which is at ``path``, has.

    Raises:
        InvalidRequest: It has none of them, or several.
    """
    given = [name for name in names if getattr(body, name) is not None]
    if len(given) != 1:
        code = "invalid_value" if given else "missing_required_parameter"
        raise InvalidRequest(f"{path} needs exactly one of: {', '.join(names)}.", path, code)
    return given[0]


def validated(kind: type[BodyT], raw: Json) -> BodyT:
    """``raw`` as a body.

    Raises:
        InvalidRequest: The first wrong field, by its path.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _as_invalid(first, kind, raw) from error


_RULES = {
    "missing": ("is required", "missing_required_parameter"),
    "extra_forbidden": ("is not supported; {owner} takes: {known}", "unsupported_parameter"),
    "union_tag_invalid": ("must be an object{typed}", "invalid_value"),
    "union_tag_not_found": ("must be an object{typed}", "invalid_value"),
    "model_type": ("must be an object{keyed}", "invalid_type"),
    "model_attributes_type": ("must be an object{typed}", "invalid_type"),
    "list_type": ("must be a list", "invalid_type"),
    "string_type": ("must be a string", "invalid_type"),
    "bool_type": ("must be true or false", "invalid_type"),
    "int_type": ("must be a whole number", "invalid_type"),
    "float_type": ("must be a number", "invalid_type"),
    "string_unicode": ("must be valid Unicode text", "invalid_value"),
    "too_short": ("must have at least {min_length} items", "invalid_value"),
    "too_long": ("has more than {max_length} items", "invalid_value"),
    "string_too_short": ("must have at least {min_length} characters", "invalid_value"),
    "string_too_long": ("has more than {max_length} characters", "string_above_max_length"),
    "greater_than_equal": ("must be at least {ge}", "invalid_value"),
    "greater_than": ("must be greater than {gt}", "invalid_value"),
    "less_than_equal": ("must be at most {le}", "invalid_value"),
    "less_than": ("must be less than {lt}", "invalid_value"),
}
"""The message for each kind of fault, and its code. Names in braces are of :func:`_as_invalid` or the fault's own."""


def _as_invalid(fault: ErrorDetails, kind: type[BaseModel], raw: Json) -> InvalidRequest:
    path = _path(fault, raw)[:MAX_PATH]
    rule, code = _rule(fault)
    known = list(_owner(kind, fault["loc"][:-1]).model_fields)
    suggestion = did_you_mean(str(fault["loc"][-1]), known) if fault["type"] == "extra_forbidden" else ""
    names = {
        "owner": path.rpartition(".")[0] or "the body",
        "known": ", ".join(known),
        "typed": _typed(_models_at(kind, fault["loc"])),
        "keyed": _keyed(_models_at(kind, fault["loc"])),
    }
    return InvalidRequest(f"{path}: {rule.format_map({**_limits(fault), **names})}.{suggestion}", path, code)


def _rule(fault: ErrorDetails) -> tuple[str, str]:
    if _limits(fault).get("min_length") == 1:
        return "must not be empty", "invalid_value"
    if fault["type"] == "value_error":  # raised by a validator of our own
        return _literal(str(fault["ctx"]["error"])), "invalid_value"
    code = "invalid_type" if fault["type"].endswith("_type") else "invalid_value"
    message = _literal(fault["msg"].replace("Input should be", "must be"))
    return _RULES.get(fault["type"], (message, code))


def _literal(text: str) -> str:
    """``text`` as ``format`` gives it back."""
    return text.replace("{", "{{").replace("}", "}}")


def _limits(fault: ErrorDetails) -> Json:
    """The numbers that a fault is about; whole ones without a point."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in fault.get("ctx", {}).items()
    }


def _typed(models: Sequence[type[BaseModel]]) -> str:
    """The types from which an object must have one, where its ``type`` decides which of ``models`` it is."""
    tags = [tag for model in models if "type" in model.model_fields for tag in _literals(model)]
    return f" with a type of: {', '.join(tags)}" if len(tags) > 1 else ""


def _keyed(models: Sequence[type[BaseModel]]) -> str:
    """The keys that an object must have."""
    required = [name for model in models for name, field in model.model_fields.items() if field.is_required()]
    return f" with the keys: {', '.join(dict.fromkeys(required))}" if required else ""


def unread_keys(body: object, raw: object, path: str = "") -> Iterator[str]:
    """Paths of the keys of ``raw`` that its validated form ``body`` has left aside; null asks for nothing."""
    if isinstance(body, BaseModel) and isinstance(raw, dict):
        names = _names_of(type(body))
        for key, value in raw.items():
            if key not in names:
                if value is not None:
                    yield f"{path}.{key}" if path else key
            elif isinstance(value, dict | list):
                yield from unread_keys(getattr(body, names[key]), value, f"{path}.{key}" if path else key)
    elif isinstance(body, list) and isinstance(raw, list):
        for index, (item, value) in enumerate(zip(body, raw, strict=True)):
            yield from unread_keys(item, value, f"{path}[{index}]")


@cache
def _names_of(kind: type[BaseModel]) -> Json:
    """The field that each key of an object is read as."""
    return {field.alias or name: name for name, field in kind.model_fields.items()}


def _owner(kind: type[BaseModel], steps: Sequence[int | str]) -> type[BaseModel]:
    """The model as which the object at ``steps`` is read."""
    return next(iter(_models_at(kind, steps)), kind)


def _models_at(kind: type[BaseModel], steps: Sequence[int | str]) -> list[type[BaseModel]]:
    """The models as one of which the object at ``steps`` may be read."""
    models = [kind]
    for step in steps:
        fields = [model.model_fields[step] for model in models if isinstance(step, str) and step in model.model_fields]
        models = [model for field in fields for model in _models_within(field.annotation)] or models
    return models


def _models_within(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a type mentions, as in ``list[Model] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_within(inner)


def _literals(model: type[BaseModel]) -> Iterator[str]:
    """The values of a model's ``type``, which may also be null."""
    for one in get_args(model.model_fields["type"].annotation):
        yield from (tag for tag in (one, *get_args(one)) if isinstance(tag, str))


def _path(fault: ErrorDetails, raw: Json) -> str:
    """``messages[0].content[1].image_url.url``; steps that exist only in pydantic's view of the body are left out."""
    path = ""
    here: Any = raw
    *_, last = fault["loc"]
    for step in fault["loc"]:
        if isinstance(here, list) and isinstance(step, int):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, dict) and (step in here or (step == last and fault["type"] == "missing")):
            path, here = f"{path}.{step}" if path else str(step), here.get(step)
    return path
