"""What ``GET /v1/models`` says of each model: OpenAI's fields and what is really known besides.

Joins a model's card with its present status. Knows nothing of requests or of where the status comes from.
"""

from __future__ import annotations

import calendar
import time
from typing import Any

from router.backends.base import ModelStatus
from router.config import RouterConfig
from vlm.models.cards import Card, TaskCard, card_of
from vlm.types import MAX_TASKS

Json = dict[str, Any]


def entry(status: ModelStatus, config: RouterConfig) -> Json:
    """One model's entry; what is not known is null or left out, never guessed."""
    card = card_of(status.name)
    return {
        "id": status.name,
        "object": "model",
        "created": _created(card),
        "owned_by": card.hugging_face_id.split("/")[0] if card.hugging_face_id else "gigarouter",
        "canonical_slug": card.hugging_face_id or status.name,
        "aliases": list(card.aliases),
        "name": card.display_name,
        "description": card.description,
        "hugging_face_id": card.hugging_face_id,
        "context_length": card.context_length,
        "architecture": _architecture(card),
        "parameters": card.parameters or None,
        "price_per_1k_images_usd": card.price_per_1k_images_usd,
        "supported_parameters": list(card.supported_parameters),
        "license": {"spdx": card.license, "url": card.license and f"https://spdx.org/licenses/{card.license}.html"},
        "tasks": [_task(task) for task in card.tasks],
        "limits": _limits(config),
        "coordinate_bins": card.coordinate_bins and list(card.coordinate_bins),
        "status": {"ready": status.ready, "detail": status.detail},
    }


def _created(card: Card) -> int:
    """When the model was published, to the month; 0 where that is not known, for the field must be a number."""
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
        "max_images": 1,
        "max_tasks": MAX_TASKS,
        "max_bytes": config.max_image_bytes,
        "max_pixels": config.max_image_pixels,
        "min_side": config.min_image_side,
    }
