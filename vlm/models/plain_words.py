"""What plain words mean to models that do not answer questions: the rules, as one table.

Only models without a task ``query`` need them. The table is published in docs/api.md, and a test compares the two.
Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vlm.types import CaptionLength, Task

MAX_CHARS = 300
"""Characters of a text to which the rules apply. In a longer one the words may mean anything: it is often a text that
an application has put together, and gets the task of :data:`OTHERWISE`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Words that ask for a task.

    Attributes:
        words: Phrases, of which one must occur, as whole words and in any case; ``...`` stands for up to three words.
        task: Canonical name of the task.
        length: Of a caption.
    """

    words: tuple[str, ...]
    task: str
    length: CaptionLength = "normal"

    def fits(self, text: str) -> bool:
        """Whether one of the phrases occurs in ``text``."""
        return any(_pattern(phrase).search(text) for phrase in self.words)


def _pattern(phrase: str) -> re.Pattern[str]:
    steps = [r"(?:\W+\w+){0,3}" if step == "..." else r"\W+" + re.escape(step) for step in phrase.split()]
    return re.compile(r"(?:^|\W)" + "".join(steps).removeprefix(r"\W+") + r"(?!\w)", re.IGNORECASE)


RULES = (
    Rule(
        ("ocr with regions", "ocr with boxes", "where is ... text", "locate ... text", "detect ... text"), "ocr_regions"
    ),
    Rule(
        (
            "ocr", "read ... text", "read ... sign", "read this", "read it", "extract ... text", "transcribe",
            "what text", "text in ... image", "what does ... say", "what is written", "what's written", "to markdown",
            "to docling",
        ),
        "ocr",
    ),
    Rule(("dense captions", "dense caption", "describe each", "describe every"), "dense_caption"),
    Rule(
        (
            "detect", "object detection", "bounding boxes", "find all", "find the objects", "locate all",
            "locate the objects", "list ... objects", "what objects", "which objects",
        ),
        "detect",
    ),
    Rule(("paragraph", "more detail", "more detailed", "great detail", "very detailed"), "caption", "long"),
    Rule(("short caption", "one sentence", "single sentence", "few words", "one line", "briefly"), "caption", "short"),
)  # fmt: skip
"""The first rule that fits decides."""

OTHERWISE = Task("caption")
"""What any other text asks for: a caption of normal length, which is the detailed one."""


def task_of(text: str) -> Task:
    """The task that plain words ask for."""
    if len(text) > MAX_CHARS:
        return OTHERWISE
    return next((Task(rule.task, length=rule.length) for rule in RULES if rule.fits(text)), OTHERWISE)


_OF_A_CAPTION = re.compile(r"\b(?:caption|describe|description)\b", re.IGNORECASE)


def asks_for_a_caption(text: str) -> bool:
    """Whether a short text says that it wants what it gets if no rule fits; of any other, the words play no part."""
    return len(text) <= MAX_CHARS and _OF_A_CAPTION.search(text) is not None


# The beginning of a caption

MAX_PREFIX_WORDS = 10
"""Words of the longest text that reads as the beginning of a caption."""

OPENINGS = frozenset(
    (
        "a", "an", "the", "this", "that", "these", "those", "there", "here", "it", "one", "two", "three", "four",
        "five", "six", "seven", "eight", "nine", "ten", "some", "several", "many", "both", "no", "his", "her", "their",
        "my", "our", "photo", "photos", "photograph", "photography", "picture", "image", "painting", "drawing",
        "sketch", "illustration", "screenshot", "portrait", "close-up", "closeup", "view",
    )
)  # fmt: skip
"""First words of a text that may be the beginning of a caption."""


def begins_a_caption(text: str) -> bool:
    """Whether ``text`` reads as the beginning of a caption, and not as a question or an instruction.

    It begins with one of :data:`OPENINGS`, is short and of one line, and no sentence ends in it.
    """
    words = text.split()
    return (
        0 < len(words) <= MAX_PREFIX_WORDS
        and words[0].casefold().strip("\"'") in OPENINGS
        and re.search(r"[.?!:;\n]", text.strip()) is None
    )
