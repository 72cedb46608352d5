"""A client's JSON schema: whether values of another schema have what it requires, and what of a value it allows.

Understands objects, arrays, types, references and alternatives, which is all that typed clients generate from their
classes. Other constraints are not looked at. A schema may refer to itself, or be written to cost time: each pair
of subschemas is compared once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

MAX_REFERENCES = 8
"""Length of a chain of references that is followed."""
MAX_ALTERNATIVES = 16
"""Number of alternatives for one value that are looked at."""
MAX_REQUIRED = 64
"""Number of properties that one object may require: more than there are in any answer."""


_OF_SCHEMAS = ("properties", "$defs", "definitions")
"""Keywords whose value has a schema for each name."""
_UNDERSTOOD = frozenset(
    (
        *_OF_SCHEMAS, "$id", "$schema", "$comment", "$ref", "type", "required", "items", "anyOf", "oneOf",
        "additionalProperties", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
        "nullable",
    )
)  # fmt: skip
"""Keywords that are obeyed, or that constrain nothing."""


class JsonSchema:
    """One schema with all that it refers to."""

    def __init__(self, root: Json) -> None:
        self._root = root

    @property
    def properties(self) -> Json:
        """The schemas of the root's properties."""
        return _mapping(self._resolved(self._root).get("properties"))

    @property
    def required(self) -> list[Any]:
        """Names of the properties that the root requires."""
        return _list(self._resolved(self._root).get("required"))

    def has_all_in(self, source: JsonSchema) -> bool:
        """Whether values of ``source`` have what this schema requires; those that may be null are taken not to be."""
        return _Comparison(self, source).holds(self._root, source._root)

    def beyond(self, source: JsonSchema) -> list[str]:
        """The keywords of this schema that are not looked at and that ``source`` does not have with the same value."""
        known = [*_constraints(source._root)]
        return [*dict.fromkeys(name for name, value in _constraints(self._root) if (name, value) not in known)]

    def kept(self, value: Any) -> Any:
        """``value`` without the properties that this schema forbids, and with null for those that it lacks.

        Typed clients declare what is optional as required and possibly null, since OpenAI's strict mode has no other
        way to say it.
        """
        return self._kept(value, self._root)

    def allows_null(self, schema: Any) -> bool:
        """Whether null is named among the types of a value."""
        return any("null" in _types(one) for one in self.alternatives(schema))

    def alternatives(self, schema: Any) -> list[Json]:
        """The schemas of which a value must fit one; the schema itself where there is no choice."""
        resolved = self._resolved(schema)
        options = _list(resolved.get("anyOf")) or _list(resolved.get("oneOf"))
        return [self._resolved(one) for one in options[:MAX_ALTERNATIVES]] or [resolved]

    def _resolved(self, schema: Any) -> Json:
        """The schema behind references; an empty one, which allows anything, where they lead nowhere."""
        for _ in range(MAX_REFERENCES):
            reference = _mapping(schema).get("$ref")
            if not isinstance(reference, str):
                break
            schema = self._root
            for step in reference.split("/", MAX_REFERENCES)[1:MAX_REFERENCES]:
                schema = _mapping(schema).get(step)
        return _mapping(schema)

    def _kept(self, value: Any, schema: Any) -> Any:
        if isinstance(value, list):
            items = self._first("array", schema).get("items")
            return [self._kept(item, items) for item in value]
        if not isinstance(value, dict):
            return value
        chosen = self._first("object", schema)
        properties, closed = _mapping(chosen.get("properties")), chosen.get("additionalProperties") is False
        lacking = [name for name in _names(chosen.get("required"))[:MAX_REQUIRED] if name not in value]
        return {name: None for name in lacking if self.allows_null(properties.get(name))} | {
            name: self._kept(inner, properties.get(name))
            for name, inner in value.items()
            if name in properties or not closed
        }

    def _first(self, kind: str, schema: Any) -> Json:
        """The first alternative for values of a type; an empty one if there is none."""
        return next((one for one in self.alternatives(schema) if kind in _types(one) or not _types(one)), {})


class _Comparison:
    """Compares a client's schema with that of the values that there are."""

    def __init__(self, theirs: JsonSchema, ours: JsonSchema) -> None:
        self._theirs = theirs
        self._ours = ours
        self._known: dict[tuple[int, int], bool] = {}

    def holds(self, theirs: Any, ours: Any) -> bool:
        """Whether values of ``ours`` have what ``theirs`` requires."""
        pair = (id(theirs), id(ours))
        if pair not in self._known:
            self._known[pair] = True  # while it is compared: a schema within itself adds nothing
            self._known[pair] = theirs is not False and any(
                self._fits(their, our)
                for our in self._ours.alternatives(ours)
                for their in self._theirs.alternatives(theirs)
            )
        return self._known[pair]

    def _fits(self, theirs: Json, ours: Json) -> bool:
        kinds, kind = _types(theirs), ours.get("type")
        if kinds and kind not in kinds and not (kind == "integer" and "number" in kinds):
            return False
        if kind == "array":
            return self.holds(theirs.get("items"), ours["items"])
        return kind != "object" or self._has_properties(theirs, ours["properties"])

    def _has_properties(self, theirs: Json, ours: Json) -> bool:
        properties, required = _mapping(theirs.get("properties")), _list(theirs.get("required"))
        if len(required) > MAX_REQUIRED or required != _names(required):
            return False
        lacking = [name for name in required if name not in ours]
        return all(self._theirs.allows_null(properties.get(name)) for name in lacking) and all(
            self.holds(properties[name], ours[name]) for name in properties if name in ours
        )


def _constraints(schema: Any) -> Iterator[tuple[str, Any]]:
    """Each keyword that is not understood, with its value, of a schema and those within it."""
    for one in schema if isinstance(schema, list) else [schema]:
        for name, value in _mapping(one).items():
            if name not in _UNDERSTOOD:
                yield name, value
            elif name in _OF_SCHEMAS:
                yield from _constraints([*_mapping(value).values()])
            elif name in ("items", "anyOf", "oneOf"):
                yield from _constraints(value)


def _types(schema: Json) -> list[Any]:
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _names(value: Any) -> list[str]:
    return [name for name in _list(value) if isinstance(name, str)]
