"""What a request says about the models that are to answer it. Standard library only; knows no format."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Mode = Literal["fallback", "auto", "compare", "consensus", "cascade", "pipeline"]
Preference = Literal["good", "cheap", "fast"]

MODES: dict[str, Mode] = {
    "auto": "auto",
    "compare": "compare",
    "consensus": "consensus",
    "cascade": "cascade",
    "pipeline": "pipeline",
}
"""The names that stand for several models, in place of a model's own."""

MAX_MODELS = 8
"""Of one request: each may take a place, and a compared answer is a choice of its own."""


CONSENSUS_TASKS = ("detect", "point", "ground", "ocr_regions")
"""Those whose objects can be matched between models."""

MAX_STAGES = 3
MAX_CROPS = 64
"""Calls of all stages of a pipeline together after its first: each is a generation of its own."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a pipeline.

    Attributes:
        model: Canonical name.
        task: Canonical name of the task.
        path: Where the body has it, for errors.
        crop: How much wider and higher than the object the part of the image is that is asked about; None where the
            request does not say.
        limit: The most objects that are asked about.
        takes_region: Whether the task is told an object's box, and not given a part of the image.
    """

    model: str
    task: str
    path: str
    crop: float | None = None
    limit: int = MAX_CROPS
    takes_region: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that names several models, or leaves the choice to the router.

    Attributes:
        requested: The name under ``model``, as the client wrote it.
        mode: What is to be done with the models.
        models: Canonical names, in the client's order; empty where the router chooses among all.
        paths: The path in the body of each of ``models``, for errors.
        task: Canonical name of the task; None where each model finds it in the text.
        text: What the user wrote, which may be empty.
        images: Number of images.
        prefer: By what ``auto`` chooses.
        max_price: The most that one image may cost, in US dollars; None for any price.
        dry_run: Say what would be done, and do nothing.
        stream: Whether the answer is to be streamed.
        min_votes: How many models must agree, for a consensus; None for more than half.
        stages: The steps of a pipeline, of which the first is about the whole image.
        batch: Whether others go first.
        min_confidence: With how much a cascade is content; None for what the models' calibrations say.
    """

    requested: str
    mode: Mode
    models: tuple[str, ...]
    paths: tuple[str, ...]
    task: str | None = None
    text: str = ""
    images: int = 0
    prefer: Preference = "good"
    max_price: Decimal | None = None
    dry_run: bool = False
    stream: bool = False
    min_votes: int | None = None
    stages: tuple[Stage, ...] = ()
    min_confidence: float | None = None
    batch: bool = False
