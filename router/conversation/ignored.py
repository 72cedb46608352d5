"""What of a conversation's body has no effect: most of it is reported with the answer, and some is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from router.asgi.validation import unread_keys
from router.config import RouterConfig
from router.conversation.fields import ModelBody
from router.conversation.history import Turn
from router.conversation.tools import TOOL_FIELDS, unused_tools
from vlm.errors import InvalidRequest

Json = dict[str, Any]

MAX_REPORTED = 32
"""Names of fields, and again of messages, that are listed as ignored; the number of others stands behind them."""
MAX_NAME = 128
"""Characters of one of these names: keys are the client's."""

IMPOSSIBLE: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "modalities": (["text"],),
    "prediction": (),
    "web_search_options": (),
}
"""Fields that no format can honour, and their values that are harmless."""


def dropped_fields(
    raw: Json, body: ModelBody, impossible: Mapping[str, tuple[object, ...]], config: RouterConfig
) -> list[str]:
    """Names of fields that cannot be honoured, those about tools among them; an error unless they may be ignored.

    Args:
        raw: The body.
        body: The same, validated.
        impossible: The names of such fields, each with its harmless values.
        config: The router's settings.

    Raises:
        InvalidRequest: With the path of the field.
    """
    drop = config.drop_params if body.drop_params is None else body.drop_params
    return [*unused_tools(raw, body.model, drop=drop), *_impossible_fields(raw, impossible, drop=drop)]


def _impossible_fields(raw: Json, impossible: Mapping[str, tuple[object, ...]], *, drop: bool) -> list[str]:
    found = [name for name, harmless in impossible.items() if not _is_harmless(raw.get(name), harmless)]
    if found and not drop:
        raise InvalidRequest(
            f"{found[0]} is not supported by these models; leave it out, or send drop_params: true to have it ignored.",
            found[0],
            "unsupported_parameter",
        )
    return found


def _is_harmless(value: object, harmless: tuple[object, ...]) -> bool:
    """Whether a value is None or one of ``harmless``; true is not 1, although Python finds them equal."""
    return value is None or (value in harmless and not isinstance(value, bool))


def unread_fields(body: ModelBody, read: Json, known: Collection[str]) -> list[str]:
    """Paths of the keys of a body, without its history, that are not in its model, about tools or ``known``."""
    return [name for name in unread_keys(body, read) if name not in known and name not in TOOL_FIELDS]


def some_of(names: Sequence[str]) -> Iterator[str]:
    """The first names, each not in full if it is long, and the number of others."""
    yield from (name[:MAX_NAME] for name in names[:MAX_REPORTED])
    if len(names) > MAX_REPORTED:
        yield f"and {len(names) - MAX_REPORTED} more"


def unused_messages(raw: Json, turn: Turn) -> list[str]:
    """Paths of the first messages of a conversation that are not used."""
    field = turn.spelling.field
    return [*some_of([f"{field}[{at}]" for at in turn.unused(raw[field])])]
