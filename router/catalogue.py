"""What ``GET /v1/models`` reports about each model: OpenAI's fields, and what else is known.

Joins what a replica has loaded, the card of the model or of its family, and the router's settings. Claims about the
published weights appear only where those are loaded, or where it is not known what is loaded.
"""

from __future__ import annotations

import calendar
import time
from dataclasses import replace
from typing import Any

from accounts.money import dollars_of
from accounts.prices import ModelPrices, per_thousand
from router.backends.base import ModelStatus
from router.config import RouterConfig
from vlm.models.cards import Card, TaskCard, card_of, cards_of
from vlm.types import MAX_IMAGES, MAX_TASKS, ModelInfo

Json = dict[str, Any]

PARAMETERS = (
    "temperature",
    "top_p",
    "seed",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "grounding_format",
    "task",
    "tasks",
)
"""Request fields that make a difference to a model."""

BEAM_PARAMETERS = frozenset({"num_beams", "length_penalty", "early_stopping"})
"""Those that make a difference only to a model with beam search."""


def entry(status: ModelStatus, config: RouterConfig) -> Json:
    """One model's entry; what is not known is null, an empty list, or 0 for a date that must be a number."""
    card = described(status)
    return {
        "id": status.name,
        "object": "model",
        "created": _created(card),
        "owned_by": card.hugging_face_id.split("/")[0] if card.hugging_face_id else "gigarouter",
        "canonical_slug": card.hugging_face_id or status.name,
        "aliases": [*card.aliases, *(["default"] if status.name == config.default_model else [])],
        "name": card.display_name,
        "description": card.description,
        "hugging_face_id": card.hugging_face_id,
        **_loaded(status.info, card),
        "context_length": card.context_length,
        "max_model_len": card.context_length,
        "architecture": _architecture(card),
        **_prices(config.price_list.models.get(status.name)),
        "supported_parameters": [name for name in PARAMETERS if card.beam_search or name not in BEAM_PARAMETERS],
        "license": {"spdx": card.license, "url": card.license and f"https://spdx.org/licenses/{card.license}.html"},
        "tasks": [_task(task) for task in card.tasks],
        "limits": _limits(config),
        "coordinate_bins": card.coordinate_bins and list(card.coordinate_bins),
        "status": {"ready": status.ready, "detail": status.detail},
    }


def task_entries(status: ModelStatus, config: RouterConfig) -> list[Json]:
    """An entry for each task that can be named behind the model's name; a region cannot be given there."""
    whole = entry(status, config)
    return [
        {
            **whole,
            "id": f"{status.name}:{task['name']}",
            "aliases": [f"{alias}:{task['name']}" for alias in whole["aliases"]],
            "name": f"{whole['name']}: {task['name']}",
            "tasks": [task],
        }
        for task in whole["tasks"]
        if "region" not in task["needs"]
    ]


def described(status: ModelStatus) -> Card:
    """The card of what is served under a name.

    Weights other than the published ones keep what follows from their architecture: the tasks, the coordinate bins,
    the context length and beam search.
    """
    if status.info is None:
        return card_of(status.name)
    card = _card_of_family(status.name, status.info)
    if status.info.checkpoint == card.hugging_face_id:
        return card if card.name == status.name else replace(card, name=status.name, aliases=())
    return Card(
        name=status.name,
        aliases=card.aliases if card.name == status.name else (),
        display_name=status.name,
        description=f"A checkpoint of the {card.family_name} architecture loaded from {status.info.checkpoint}.",
        family_name=card.family_name,
        architecture=card.family_name,
        tasks=card.tasks,
        coordinate_bins=card.coordinate_bins,
        context_length=card.context_length,
        beam_search=card.beam_search,
    )


def _card_of_family(name: str, info: ModelInfo) -> Card:
    """The family's card for these weights, else the one of this name, else its first."""
    cards = cards_of(info.family) or (Card(name, family_name=info.family),)
    by_weights = [card for card in cards if card.hugging_face_id == info.checkpoint]
    by_name = [card for card in cards if card.name == name]
    return (*by_weights, *by_name, *cards)[0]


def _loaded(info: ModelInfo | None, card: Card) -> Json:
    """What a replica has loaded; the number of parameters is the published one where that is not known."""
    return {
        "family": info and info.family,
        "checkpoint": info and info.checkpoint,
        "revision": info and info.revision,
        "dtype": info and info.dtype,
        "parameters": card.parameters if info is None else info.parameters,
    }


def _prices(prices: ModelPrices | None) -> Json:
    """Of a thousand images, as people compare them; and of one of each, as OpenRouter's list has it."""
    if prices is None:
        return {"price_per_1k_images_usd": None, "pricing": None}
    output = max((task.output for task in prices.tasks.values()), default=0)
    one = {"prompt": 0, "completion": output, "request": 0, "image": prices.image, "cached_image": prices.cached_image}
    tasks = {
        name: {"each": dollars_of(task.each), "output": dollars_of(task.output)} for name, task in prices.tasks.items()
    }
    pricing = {name: dollars_of(amount) for name, amount in one.items()}
    return {"price_per_1k_images_usd": per_thousand(prices.image), "pricing": {**pricing, "tasks": tasks}}


def _created(card: Card) -> int:
    """When the model was published, to the month; 0 where that is not known, because the field must be a number."""
    return calendar.timegm(time.strptime(card.published, "%Y-%m")) if card.published else 0


def _architecture(card: Card) -> Json:
    return {
        "modality": "text+image->text",
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "description": card.architecture or None,
    }


def _task(task: TaskCard) -> Json:
    return {"name": task.name, "native": list(task.native), "outputs": list(task.outputs), "needs": list(task.needs)}


def _limits(config: RouterConfig) -> Json:
    return {
        "max_images": MAX_IMAGES,
        "max_tasks": MAX_TASKS,
        "max_bytes": config.max_image_bytes,
        "max_pixels": config.max_image_pixels,
        "min_side": config.min_image_side,
    }
