"""What is publicly known about each model: names, sizes, licence, tasks.

Standard library only. A family states its facts in ``vlm/models/<family>/card.py``, where they are found by looking;
nothing is registered and no model is named here. Knows nothing of what is running, nor of HTTP.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

PARAMETERS = (
    "temperature",
    "top_p",
    "seed",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "logprobs",
    "response_format",
    "task",
    "tasks",
)
"""Request fields that make a difference to most models."""

BEAM_PARAMETERS = ("num_beams", "length_penalty", "early_stopping")
"""Those that make none to a model without beam search."""


@dataclass(frozen=True, slots=True)
class TaskCard:
    """One task that a model offers.

    Attributes:
        name: Canonical name (``"detect"``).
        native: The model's own prompts for it; empty where it has none.
        outputs: What the answer holds: ``"text"``, ``"boxes"``, ``"quads"``, ...
        needs: Arguments that it cannot do without (``"text"``).
    """

    name: str
    native: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("text",)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file whose content is known.

    Attributes:
        name: Its name in the checkpoint's folder.
        size: In bytes.
        sha256: 64 hexadecimal digits.
        source: Where it comes from if not from the card's repository: ``"organisation/name at <commit>"``. The card's
            own may then have another file of that name.
    """

    name: str
    size: int
    sha256: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """Known files of one revision (a full commit id) of the card's repository."""

    revision: str
    files: tuple[PublishedFile, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """The facts about one model. None or empty: not known, and then not claimed.

    Attributes:
        name: The name in requests, which is also the name of its application.
        aliases: Further names accepted in requests.
        display_name, description, architecture, parameters: For people.
        license: SPDX identifier.
        published: Year and month (``"2024-06"``).
        price_per_1k_images_usd: An estimate, as a decimal string.
        coordinate_bins: (across, down): the grid on which the model says where things are.
        context_length: Most tokens of prompt and answer together.
        releases: Revisions of which files are known, for ``python -m vlm.verify``.
        supported_parameters: Request fields that make a difference to this model.
    """

    name: str
    aliases: tuple[str, ...] = ()
    hugging_face_id: str | None = None
    display_name: str = ""
    description: str = ""
    architecture: str = ""
    parameters: str = ""
    license: str | None = None
    published: str | None = None
    price_per_1k_images_usd: str | None = None
    tasks: tuple[TaskCard, ...] = ()
    coordinate_bins: tuple[int, int] | None = None
    context_length: int | None = None
    releases: tuple[Release, ...] = ()
    supported_parameters: tuple[str, ...] = PARAMETERS


@cache
def cards() -> Mapping[str, Card]:
    """Every card, by the model's name."""
    return MappingProxyType({card.name: card for family in _families() for card in cards_of(family)})


def canonical_name(model: str) -> str:
    """The name in requests that ``model`` stands for; a name that no card knows stands for itself."""
    return _aliases().get(model, model)


def card_of(name: str) -> Card:
    """The card of a model by its canonical name; a minimal one for a model without."""
    return cards().get(name) or Card(name, display_name=name)


@cache
def _aliases() -> Mapping[str, str]:
    return {alias: card.name for card in cards().values() for alias in card.aliases}


def _families() -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.ispkg]


def cards_of(family: str) -> tuple[Card, ...]:
    """The cards of one family, by its folder's name."""
    if not _has_card(family):
        return ()
    found: tuple[Card, ...] = importlib.import_module(f"{__package__}.{family}.card").CARDS
    return found


def _has_card(family: str) -> bool:
    # Not an ImportError caught: an import that fails within a card must be seen.
    return importlib.util.find_spec(f"vlm.models.{family}.card") is not None
