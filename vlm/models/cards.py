"""What is publicly known about each model: names, sizes, licence, tasks.

Standard library only. A family states its facts in ``vlm/models/<family>/card.py``, which is found by its path: there
is no list of models here.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskCard:
    """One task that a model offers.

    Attributes:
        name: Canonical name (``"detect"``).
        native: The model's own prompts for the task; empty where it has none.
        outputs: What the answer holds: ``"text"``, ``"boxes"``, ``"quads"``, ...
        needs: Arguments that it requires (``"text"``).
        rank: Its place among the models that have the task, the best first, by what the models' papers and cards
            report and by what their answers hold: the order in which a choice is made for those who name no model.
    """

    name: str
    native: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("text",)
    needs: tuple[str, ...] = ()
    rank: int = 9


@dataclass(frozen=True, slots=True)
class PromptCard:
    """A native prompt that begins with a tag, and the canonical task that it asks for.

    Attributes:
        prompt: The whole prompt; ``...`` stands for its argument.
        task: Canonical name of the task.
        argument: The argument of the task that the prompt has: ``"text"``, ``"labels"`` or ``"region"``; "" for none.
        length: Of a caption: ``"short"``, ``"normal"`` or ``"long"``.
    """

    prompt: str
    task: str
    argument: str = ""
    length: Literal["short", "normal", "long"] | None = None


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file whose content is known.

    Attributes:
        name: Its name in the checkpoint's folder.
        size: In bytes.
        sha256: 64 hexadecimal digits.
        source: Where it comes from if not from the card's repository: ``"organisation/name at <commit>"``. The card's
            own repository may then have a different file of that name.
    """

    name: str
    size: int
    sha256: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """One revision of the card's repository for which the family is written.

    Attributes:
        revision: The full commit id.
        files: Files of it whose content is known; empty where no hash is known.
    """

    revision: str
    files: tuple[PublishedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """The facts about one model. None or empty means unknown, and then nothing is claimed.

    Attributes:
        name: The name in requests, which is also the name of its application.
        aliases: Further names accepted in requests.
        hugging_face_id: The repository of the published weights.
        display_name, description: For people, about the published weights.
        family_name: Name of the architecture, for people (``"BLIP"``).
        architecture: What the published model is made of, for people.
        parameters: Number of parameters, rounded as published.
        license: SPDX identifier of the published weights.
        published: Year and month (``"2024-06"``).
        tasks: What the architecture offers.
        prompts: Its native prompts as other models understand them.
        coordinate_bins: (across, down): the grid on which the model gives coordinates.
        context_length: Maximum number of tokens of prompt and answer together.
        beam_search: Whether it can search with beams.
        reasoning: Whether it can reason before it answers a question. Plain words are a question to such a model.
        releases: Revisions to load, the preferred one first; ``python -m vlm.verify`` compares their known files.
        api: Name of the HTTP API of its own makers (``"moondream"``), whose requests mean this model unless they name
            another; "" where there is none.
    """

    name: str
    aliases: tuple[str, ...] = ()
    hugging_face_id: str | None = None
    display_name: str = ""
    description: str = ""
    family_name: str = ""
    architecture: str = ""
    parameters: int | None = None
    license: str | None = None
    published: str | None = None
    tasks: tuple[TaskCard, ...] = ()
    prompts: tuple[PromptCard, ...] = ()
    coordinate_bins: tuple[int, int] | None = None
    context_length: int | None = None
    beam_search: bool = True
    reasoning: bool = False
    releases: tuple[Release, ...] = ()
    api: str = ""


@cache
def cards() -> Mapping[str, Card]:
    """Every card, by the model's name; a family whose card cannot be read is skipped with a warning."""
    return MappingProxyType({card.name: card for family in _families() for card in _readable_cards(family)})


def canonical_name(model: str) -> str:
    """The model's own name for any of its names; a name that is on no card is returned as it is."""
    return _aliases().get(model, model)


def card_of(name: str) -> Card:
    """The card of a model by its canonical name; a minimal one for a model without."""
    return cards().get(name) or Card(name, display_name=name)


@cache
def _aliases() -> Mapping[str, str]:
    return {alias: card.name for card in cards().values() for alias in card.aliases}


def _families() -> list[str]:
    folders = importlib.import_module("vlm.models").__path__
    return [module.name for module in pkgutil.iter_modules(folders) if module.ispkg]


def _readable_cards(family: str) -> tuple[Card, ...]:
    """The cards of a family, or none where they raise: a folder that is being written must not take others down."""
    try:
        return cards_of(family)
    except Exception as error:  # noqa: BLE001  a half-written module may raise anything
        log.warning("vlm/models/%s has no usable card.py: %s: %s", family, type(error).__name__, error)
        return ()


def cards_of(family: str) -> tuple[Card, ...]:
    """The cards of one family, by its folder's name; none for a family that is not here."""
    if not _has_card(family):
        return ()
    found: tuple[Card, ...] = importlib.import_module(f"{__package__}.{family}.card").CARDS
    return found


def _has_card(family: str) -> bool:
    # Catching ImportError instead would hide an import that fails within a card.
    return family in _families() and importlib.util.find_spec(f"vlm.models.{family}.card") is not None
