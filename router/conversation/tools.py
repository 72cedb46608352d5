"""Tools, which these models cannot call: an offer of them is left aside, and a demand is refused.

Chat interfaces and agents offer tools with every request, so an offer is not refused. The words of the refusal are
those by which clients know that they should ask again without tools.
"""

from __future__ import annotations

from typing import Any

from vlm.errors import InvalidRequest

Json = dict[str, Any]

OFFERS = ("tools", "functions")
CHOICES = ("tool_choice", "function_call")
NOT_DEMANDED = (None, "auto", "none")
TOOL_FIELDS = (*OFFERS, *CHOICES)


def unused_tools(raw: Json, model: str, *, drop: bool) -> list[str]:
    """The fields about tools that a body has; those that offer nothing or forbid tools are not among them.

    Args:
        raw: The body.
        model: For the message.
        drop: Leave a demand aside as well.

    Raises:
        InvalidRequest: A tool must be called.
    """
    offered = [name for name in OFFERS if raw.get(name) not in (None, [])]
    demanded = [name for name in CHOICES if _mode(raw.get(name)) not in NOT_DEMANDED]
    if demanded and not drop:
        raise InvalidRequest(
            f"{model[:128]} does not support tools: leave {demanded[0]} out or set it to auto, and tools are ignored. "
            "For a typed answer, ask for a JSON schema instead.",
            demanded[0],
            "unsupported_parameter",
        )
    return [*offered, *demanded]


def _mode(choice: object) -> object:
    """A choice, or for a list of allowed tools how much of a demand it is; chat has that within a further object."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return choice
    inner = choice.get("allowed_tools")
    return inner.get("mode") if isinstance(inner, dict) else choice.get("mode")
