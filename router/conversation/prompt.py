"""The prompt among the text parts of a message, and what chat interfaces put around it.

A part that is a native prompt by itself (``<OD>``) is the prompt, whatever stands beside it. Otherwise all parts are,
one line for each, without what an interface has added for models that need it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from router.config import RouterConfig
from vlm.errors import InvalidRequest
from vlm.models.native_prompts import native_prompt

_ATTACHED = re.compile(r"\s*<attached_files>.*?</attached_files>\s*", re.DOTALL)
"""The list of a message's files, which stands before its text, as a part of its own or in the same part."""
_NUMBER = re.compile(r"\s*(?:Image|Picture|Photo)\s*\d+\s*:?\s*", re.IGNORECASE)
"""What stands before each image, as a part of its own."""


_IN_BASE64 = ";base64,"
_DATA = re.compile(r"[A-Za-z0-9+/_=-]{64}")
"""More than any text has that only mentions data URLs; the smallest image has more."""
_HEAD_CHARS = 512
"""Characters between ``data:`` and the data."""
MAX_MENTIONS = 16
"""Places of a text that are looked at."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text of a message.

    Attributes:
        text: The prompt.
        native: Whether it is a native prompt of any model.
        unused: Positions of the parts that are not wholly used.
    """

    text: str
    native: bool
    unused: tuple[int, ...] = ()


def read_prompt(parts: Sequence[tuple[int, str]]) -> Prompt:
    """The prompt of a message whose text parts are ``parts``, each with its position."""
    told = [(at, _ATTACHED.sub("", text, count=1) if _ATTACHED.match(text) else text) for at, text in parts]
    native = next(((at, text) for at, text in told if native_prompt(text) is not None), None)
    if native is not None:
        used = {native[0]}
        text = native[1]
    else:
        kept = [(at, text) for at, text in told if text and not _NUMBER.fullmatch(text)]
        used = {at for at, _ in kept}
        text = "\n".join(text for _, text in kept)
    whole = {at for (at, before), (_, after) in zip(parts, told, strict=True) if before == after}
    return Prompt(text, native is not None, tuple(at for at, text in parts if text and at not in used & whole))


def check_length(chars: int, path: str, config: RouterConfig) -> None:
    """Refuse a text of more characters than the router reads, in the words by which LiteLLM and LangChain know it.

    Args:
        chars: Number of characters of the text.
        path: Where the text is in the body, for the error.
        config: The router's settings.

    Raises:
        InvalidRequest: It has more.
    """
    if chars > config.max_prompt_chars:
        raise InvalidRequest(
            f"Input tokens exceed the configured limit: the text has {chars} characters; the maximum is "
            f"{config.max_prompt_chars}.",
            path,
            "context_length_exceeded",
        )


def has_data_url(text: str) -> bool:
    """Whether an image stands in ``text`` as a data URL, which no model can read as words."""
    at = -1
    for _ in range(MAX_MENTIONS):
        at = text.find(_IN_BASE64, at + 1)
        if at < 0:
            return False
        head = text[max(at - _HEAD_CHARS, 0) : at].lower().rpartition("data:")
        if head[1] and _DATA.match(text, at + len(_IN_BASE64)):
            return True
    return False
