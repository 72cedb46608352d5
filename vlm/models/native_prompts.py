"""The native prompts of all models, and what one means to a model that has other prompts.

A prompt such as ``<OD>`` is never read as words: a model to which it is foreign does the same canonical task, or
refuses it and names the models that do. The prompts are those of the cards. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.models.cards import Card, PromptCard, cards, cards_of
from vlm.types import CaptionLength, Task

SLOT = "..."
_MARKER = re.compile(r"<[A-Za-z_]+>")


@dataclass(frozen=True, slots=True)
class NativePrompt:
    """A native prompt that a text is, as a whole.

    Attributes:
        card: The prompt, as its model's card has it.
        argument: The text in place of its ``...``; "" for a prompt without.
    """

    card: PromptCard
    argument: str

    def task(self) -> Task:
        """The same as a canonical task."""
        length: CaptionLength = self.card.length or "normal"
        if self.card.argument == "labels":
            return Task(self.card.task, labels=(self.argument,))
        return Task(self.card.task, text=self.argument if self.card.argument == "text" else None, length=length)


def native_prompt(text: str) -> NativePrompt | None:
    """The native prompt of any model that ``text`` is by itself."""
    stripped = text.strip()
    if not stripped.startswith("<"):
        return None
    found = ((card, pattern.fullmatch(stripped)) for card, pattern in _patterns())
    return next((NativePrompt(card, (match["argument"] or "").strip()) for card, match in found if match), None)


def foreign_task(family: str, text: str) -> Task | None:
    """The canonical task that a native prompt of another model asks for; None where ``text`` has none.

    Args:
        family: Folder of the family that is to answer.
        text: The prompt, which is none of the family's own.

    Raises:
        UnsupportedTask: The family does not have the task, or needs an argument for it that the prompt does not have.
        InvalidRequest: The text has a token of a native prompt and is none, or its argument is a region.
    """
    marker = next((token for token in _MARKER.findall(text) if token in _markers()), None)
    if marker is None:
        return None
    found = native_prompt(text)
    if found is None:
        raise InvalidRequest(_misread(marker), "prompt", "invalid_value")
    model = next(iter(cards_of(family)), Card(family))
    if not _offers(model, found.card):
        raise _unsupported(model.family_name or family, found.card)
    if found.card.argument == "region":
        raise InvalidRequest(
            f"{marker} gives its region in tokens of another model: send the task {found.card.task!r} with a region.",
            "prompt",
            "invalid_value",
        )
    return found.task()


def _unsupported(model: str, prompt: PromptCard) -> UnsupportedTask:
    others = [card.name for card in cards().values() if _offers(card, prompt)]
    without = "" if prompt.argument else " without an argument"
    return UnsupportedTask(
        f"{_shown(prompt)} asks for the task {prompt.task!r}{without}, which {model} does not offer. Models that do: "
        f"{', '.join(others)}.",
        "prompt",
        "unsupported_task",
    )


def _offers(model: Card, prompt: PromptCard) -> bool:
    """Whether a model has a prompt's task, and needs no other argument for it than the prompt has."""
    return any(task.name == prompt.task and set(task.needs) <= {prompt.argument} for task in model.tasks)


def _shown(prompt: PromptCard) -> str:
    return prompt.prompt.partition(SLOT)[0].strip()


def _misread(marker: str) -> str:
    forms = [prompt.prompt for prompt, _ in _patterns() if prompt.prompt.startswith(marker)]
    if forms == [marker]:
        return f"{marker} takes no other text."
    return f"{marker} is part of a prompt that must be all of the text; its forms are: {', '.join(forms)}"


@cache
def _patterns() -> tuple[tuple[PromptCard, re.Pattern[str]], ...]:
    return tuple((prompt, _pattern(prompt)) for card in cards().values() for prompt in card.prompts)


@cache
def _markers() -> frozenset[str]:
    """The token with which each prompt begins."""
    return frozenset(match.group() for prompt, _ in _patterns() if (match := _MARKER.match(prompt.prompt)))


def _pattern(prompt: PromptCard) -> re.Pattern[str]:
    """A prompt as a pattern: white space is free, and an argument holds no tag but those of a region."""
    argument = r"(?P<argument>(?:<loc_\d+>|\s)+)" if prompt.argument == "region" else r"(?P<argument>[^<>]*[^<>\s]\s*)"
    before, slot, after = prompt.prompt.partition(SLOT)
    pattern = _spaced(before) + (r"\s*" + argument + _spaced(after) if slot else r"(?P<argument>)")
    return re.compile(pattern, re.DOTALL)


def _spaced(text: str) -> str:
    """White space in ``text`` as any white space; it may also stand after a tag."""
    words = [re.escape(word) for word in text.split()]
    return r"\s+".join(words).replace(">", r">\s*")
