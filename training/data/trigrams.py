"""Repeated trigrams. Two of the models ban them when they decode, so that no text that they learn may have one.

Texts are split as the miniatures' tokenizers split them: whole words, single capital letters, tags, punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

_TOKEN = re.compile(r"<[^<>]*>|[A-Z](?![a-z])|\w+?(?=[A-Z]|\b)|[^\w\s]")


def split(text: str) -> list[str]:
    """The words, single letters of words in capitals, tags and punctuation marks of ``text``."""
    return _TOKEN.findall(text)


def repeated(tokens: Sequence[Hashable]) -> set[tuple[Hashable, ...]]:
    """The trigrams that occur more than once."""
    trigrams = [tuple(tokens[index : index + 3]) for index in range(len(tokens) - 2)]
    return {trigram for trigram in trigrams if trigrams.count(trigram) > 1}
