"""The one list of prices: what an answer costs, and at most, and what the catalogue says.

An amount follows from the list and from what was done, and from nothing else. So the answer, the estimate, the ledger
and the catalogue agree without telling each other, and whoever has an entry of the ledger and its list can count it
again::

    images that are new   x image            a request without an image pays for one
    images seen before    x cached_image
    tasks                 x each of the task, for each image
    tokens written        x output of the task (the dearest where there are several)
    ------------------------------------------------------------------------------
    the sum, and for a batch batch_percent of it, rounded up to a nano-dollar
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from accounts.money import PER_THOUSAND, Nano, dollars_of
from accounts.types import Charge

FREE = 0
CHARS_OF_DIGEST = 32


@dataclass(frozen=True, slots=True)
class TaskPrice:
    """What a task costs beside the image, in nano-dollars: for each image that it is done on, each token written."""

    each: Nano = FREE
    output: Nano = FREE


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """What a model costs.

    Attributes:
        image: For an image.
        cached_image: For an image that had been encoded before.
        tasks: By canonical name; a task that is not listed costs nothing beside its image.
    """

    image: Nano
    cached_image: Nano
    tasks: Mapping[str, TaskPrice] = field(default_factory=dict)

    def of(self, charge: Charge) -> Nano:
        """What this much costs, a batch not considered."""
        images = max(1, charge.images)
        cached = min(charge.cached_images, charge.images)
        listed = [self.tasks[task] for task in charge.tasks if task in self.tasks]
        each = sum(task.each for task in listed)
        output = max((task.output for task in listed), default=FREE)
        by_images = (images - cached) * self.image + cached * self.cached_image + images * each
        return by_images + charge.completion_tokens * output

    def at_most(self, images: int, tasks: tuple[str, ...], output_tokens: int) -> Nano:
        """The most that a request can cost, before anything is known of its answer.

        Without ``tasks``, the request has not said what it asks for, so that it may be the dearest.
        """
        dearest = tasks or tuple(sorted(self.tasks, key=lambda name: self.tasks[name].each)[-1:])
        outputs = [self.tasks[name].output for name in (tasks or tuple(self.tasks)) if name in self.tasks]
        each = sum(self.tasks[name].each for name in dearest if name in self.tasks)
        image = max(self.image, self.cached_image)
        return max(1, images) * (image + each) + output_tokens * max(outputs, default=FREE)


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices of all models.

    Attributes:
        models: By canonical name. A model that is not listed has no price: it costs nothing, and says so.
        version: The operator's name of the list.
        batch_percent: What a batch pays of the sum.
    """

    models: Mapping[str, ModelPrices] = field(default_factory=dict)
    version: str = ""
    batch_percent: int = 50

    def amount(self, charge: Charge) -> Nano:
        """What an answer costs."""
        prices = self.models.get(charge.model)
        return FREE if prices is None else self._for(prices.of(charge), batch=charge.batch)

    def at_most(
        self, model: str, images: int, tasks: tuple[str, ...] = (), output_tokens: int = 0, *, batch: bool = False
    ) -> Nano:
        """The most that a request can cost: never less than :meth:`amount` of what becomes of it.

        Args:
            model: Canonical name.
            images: Number of its images.
            tasks: Canonical names; empty where they are not known yet.
            output_tokens: Most tokens of all its answers together.
            batch: Whether others go first.
        """
        prices = self.models.get(model)
        return FREE if prices is None else self._for(prices.at_most(images, tasks, output_tokens), batch=batch)

    def json(self) -> dict[str, Any]:
        """The list as it is kept beside the entries that follow it, in US dollars a thousand."""
        return {
            "version": self.version,
            "batch_percent": self.batch_percent,
            "models": {name: _model_json(prices) for name, prices in sorted(self.models.items())},
        }

    @property
    def digest(self) -> str:
        """The same for the same prices: what entries name their list by."""
        text = json.dumps(self.json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:CHARS_OF_DIGEST]

    def _for(self, amount: Nano, *, batch: bool) -> Nano:
        return -(-amount * self.batch_percent // 100) if batch else amount


def _model_json(prices: ModelPrices) -> dict[str, Any]:
    return {
        "image": per_thousand(prices.image),
        "cached_image": per_thousand(prices.cached_image),
        "tasks": {
            name: {"each": per_thousand(task.each), "output": per_thousand(task.output)}
            for name, task in sorted(prices.tasks.items())
        },
    }


def per_thousand(amount: Nano) -> str:
    """The price of a thousand pieces in US dollars, of one that costs ``amount``."""
    return dollars_of(amount * 1000)


def of_thousand(dollars: str) -> Nano:
    """The price of one piece, of a thousand that cost a decimal string of US dollars.

    Raises:
        ValueError: One piece would cost a part of a nano-dollar.
    """
    whole, _, decimals = dollars.partition(".")
    if len(decimals.rstrip("0")) > 6:
        raise ValueError("must have at most six digits after the point, because it is the price of a thousand")
    return int(whole) * PER_THOUSAND + int(decimals.rstrip("0").ljust(6, "0") or 0)
