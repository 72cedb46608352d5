"""Runs of three tokens: two of the models ban a run that has occurred, so that no text they learn may repeat one.

Texts are split as every tokenizer of the miniatures splits them: whole words, capital letters one by one, marks.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

_TOKEN = re.compile(r"<[^<>]*>|[A-Z](?![a-z])|\w+?(?=[A-Z]|\b)|[^\w\s]")


def split(text: str) -> list[str]:
    """The words, capital letters of spelled words, tags and marks of ``text``."""
    return _TOKEN.findall(text)


def repeated(tokens: Sequence[Hashable]) -> set[tuple[Hashable, ...]]:
    """The runs of three that occur more than once."""
    runs = [tuple(tokens[index : index + 3]) for index in range(len(tokens) - 2)]
    return {run for run in runs if runs.count(run) > 1}
